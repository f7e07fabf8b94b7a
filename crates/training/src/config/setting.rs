//! `--set key.path=value`.

/// Puts `key.path=value` into a table. The value is TOML, or a bare word that is taken as a string.
pub(super) fn set(table: &mut toml::Table, setting: &str) -> Result<(), String> {
    let (path, text) = setting.split_once('=').ok_or("not of the form key=value")?;
    let (path, text) = (path.trim(), text.trim());
    let value = match toml::from_str::<toml::Table>(&format!("value = {text}")) {
        // A line break in the text may have begun another key.
        Ok(mut parsed) if parsed.len() == 1 => parsed.remove("value").ok_or("not one value")?,
        Ok(_) => return Err(format!("{text:?} is not one value")),
        Err(_) if !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "-_./".contains(c)) => {
            toml::Value::String(text.to_owned())
        }
        Err(_) => return Err(format!("{text} is not a TOML value")),
    };
    let mut keys: Vec<&str> = path.split('.').collect();
    let last = keys.pop().filter(|key| !key.is_empty()).ok_or("the key is empty")?;
    let mut inner = table;
    for key in keys {
        inner = inner
            .entry(key)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .ok_or_else(|| format!("{key} is a value, not a table"))?;
    }
    // An integer is a fine way to write a whole float.
    let value = match (inner.get(last), value) {
        (Some(toml::Value::Float(_)), toml::Value::Integer(whole)) => toml::Value::Float(whole as f64),
        (_, value) => value,
    };
    inner.insert(last.to_owned(), value);
    Ok(())
}
