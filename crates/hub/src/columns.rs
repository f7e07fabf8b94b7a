//! Which columns of a table hold the pairs.

use parquet::basic::Type;
use parquet::schema::types::SchemaDescriptor;

/// Names that people give to label maps. What else is an image is the photo.
const LABEL_MAPS: [&str; 17] = [
    "annotation",
    "annotations",
    "conditioning_image",
    "ground_truth",
    "gt",
    "label",
    "label_image",
    "label_map",
    "labels",
    "mask",
    "masks",
    "seg",
    "segmentation",
    "segmentation_map",
    "segmentation_mask",
    "semantic",
    "semantic_segmentation",
];

const PHOTOS: [&str; 10] =
    ["image", "images", "img", "input", "input_image", "original", "photo", "photos", "picture", "pixel_values"];

/// A column of images, `{bytes, path}` in the way of the datasets library.
pub(crate) struct ImageColumn {
    pub(crate) name: String,
    /// Number of the column `NAME.bytes` among the leaves of the schema.
    pub(crate) leaf: usize,
}

/// The image columns of a table, in its order.
pub(crate) fn image_columns(schema: &SchemaDescriptor) -> Vec<ImageColumn> {
    let leaves = schema.columns().iter().enumerate();
    leaves
        .filter(|(_, column)| column.physical_type() == Type::BYTE_ARRAY && column.max_rep_level() == 0)
        .filter_map(|(leaf, column)| match column.path().parts() {
            [name, field] if field == "bytes" => Some(ImageColumn { name: name.clone(), leaf }),
            _ => None,
        })
        .collect()
}

/// Of the names of all image columns that of side-by-side pairs, or those of the photos and of the label maps.
///
/// Of two, the label map is the one whose name says so, and the second if the names do not decide. Of more, exactly one
/// must have a label map's name and one a photo's.
pub(crate) fn choose(images: &[&str]) -> Result<Vec<String>, String> {
    let only = |names: &[&str]| {
        let mut named = images.iter().copied().filter(|name| names.contains(&name.to_lowercase().as_str()));
        named.next().filter(|_| named.next().is_none())
    };
    let chosen = match (images, only(&PHOTOS), only(&LABEL_MAPS)) {
        ([], _, _) => return Err("no column of images ({bytes, path})".to_owned()),
        (&[pair], _, _) => vec![pair],
        (_, Some(photo), Some(label_map)) => vec![photo, label_map],
        (&[first, second], None, Some(label_map)) if label_map == first => vec![second, first],
        (&[first, second], Some(photo), None) if photo == second => vec![second, first],
        (&[first, second], _, _) => vec![first, second],
        (images, _, _) => {
            return Err(format!(
                "columns of images {}: which are the photo and the label map is not clear",
                images.join(", ")
            ));
        }
    };
    Ok(chosen.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_decide_and_then_order() {
        for (names, chosen) in [
            (&["pairs"][..], &["pairs"][..]),
            (&["image", "label"], &["image", "label"]),
            (&["mask", "image"], &["image", "mask"]),
            (&["Mask", "left"], &["left", "Mask"]),
            (&["left", "photo"], &["photo", "left"]),
            (&["photo", "left"], &["photo", "left"]),
            (&["imageA", "imageB"], &["imageA", "imageB"]),
            (&["label", "mask"], &["label", "mask"]),
            (&["depth", "annotation", "image"], &["image", "annotation"]),
            (&["conditioning_image", "image"], &["image", "conditioning_image"]),
        ] {
            assert_eq!(choose(names).unwrap(), chosen, "{names:?}");
        }
    }

    #[test]
    fn what_is_not_clear_is_refused() {
        assert_eq!(choose(&[]).unwrap_err(), "no column of images ({bytes, path})");
        assert_eq!(
            choose(&["image", "label", "mask"]).unwrap_err(),
            "columns of images image, label, mask: which are the photo and the label map is not clear"
        );
    }
}
