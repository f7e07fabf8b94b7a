//! What separates the recipes of several runs.

use super::Column;
use crate::table::{Cell, NOTHING, Row, Table};

/// The settings in which the runs differ, a row each and a column a run; none where they do not.
pub(super) fn differences(columns: &[Column]) -> Option<Table> {
    let settings: Vec<Vec<(String, String)>> = columns
        .iter()
        .map(|column| {
            let mut flat = Vec::new();
            flatten("", &column.run.settings, &mut flat);
            flat
        })
        .collect();
    let mut keys: Vec<&String> = Vec::new();
    for (key, _) in settings.iter().flatten() {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let mut rows = Vec::new();
    for key in keys {
        let find = |flat: &'_ Vec<(String, String)>| {
            flat.iter().find(|(other, _)| other == key).map_or_else(|| NOTHING.to_owned(), |(_, value)| value.clone())
        };
        let values: Vec<String> = settings.iter().map(find).collect();
        if values.windows(2).any(|pair| pair[0] != pair[1]) {
            rows.push(Row { name: key.clone(), series: None, cells: values.into_iter().map(Cell::new).collect() });
        }
    }
    let head = std::iter::once("Setting".to_owned()).chain(columns.iter().map(|column| column.name.clone())).collect();
    (!rows.is_empty()).then(|| Table {
        caption: "Where the recipes differ".to_owned(),
        head,
        rows,
        note: String::new(),
    })
}

/// Dotted keys in the order of the file.
fn flatten(prefix: &str, table: &toml::Table, flat: &mut Vec<(String, String)>) {
    for (key, value) in table {
        let key = format!("{prefix}{key}");
        match value {
            toml::Value::Table(inner) => flatten(&format!("{key}."), inner, flat),
            toml::Value::String(text) => flat.push((key, text.clone())),
            other => flat.push((key, other.to_string())),
        }
    }
}
