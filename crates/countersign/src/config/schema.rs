//! JSON Schemas of both files, for editors and CI, generated from the structs that decode them.
use super::platform::PlatformFile;
use super::service::ServiceFile;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// The platform file's schema, JSON Schema draft 2020-12.
pub fn platform() -> Value {
    of::<PlatformFile>("countersign.yaml, the platform team's file")
}

/// A service file's schema.
pub fn service() -> Value {
    of::<ServiceFile>("services/*.yaml, one service's file")
}

fn of<T: schemars::JsonSchema>(title: &str) -> Value {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    let mut value = schema.to_value();
    refuse_null(&mut value);
    let mut document = serde_json::Map::new();
    if let Value::Object(mut members) = value {
        document.extend(members.remove("$schema").map(|draft| ("$schema".to_owned(), draft)));
        members.remove("title");
        document.insert("title".to_owned(), title.into());
        document.extend(members);
    }
    Value::Object(document)
}

/// An optional field may be left out, but not be empty: only lists may (`rules:` with nothing under it).
fn refuse_null(schema: &mut Value) {
    if let Value::Object(members) = schema {
        if let Some(Value::Array(types)) = members.get_mut("type")
            && !types.iter().any(|name| name == "array")
        {
            types.retain(|name| name != "null");
            if let [one] = types.as_slice() {
                let one = one.clone();
                members.insert("type".to_owned(), one);
            }
        }
        if let Some(Value::Array(choices)) = members.get_mut("anyOf") {
            choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
            if let [Value::Object(only)] = choices.as_mut_slice() {
                let only = std::mem::take(only);
                members.remove("anyOf");
                members.extend(only);
            }
        }
    }
    match schema {
        Value::Object(members) => members.values_mut().for_each(refuse_null),
        Value::Array(items) => items.iter_mut().for_each(refuse_null),
        _ => {}
    }
}

/// As committed under `schema/`.
pub fn text(schema: &Value) -> String {
    format!("{schema:#}\n")
}
