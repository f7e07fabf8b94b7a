//! Image pairs from the Hugging Face Hub.
