//! Holds what is written as JSON against the schemas of docs/schema. A reader of them allows names that it
//! does not know; here each name that is written must be described.
//!
//! It knows the keywords that these schemas use, and refuses any other: a schema says nothing that is not
//! checked.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The schemas by the type of the objects that they describe.
static SCHEMAS: LazyLock<Result<Vec<(&str, Value)>>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
    let read = |name| {
        let text = fs::read_to_string(folder.join(format!("{name}.json")))?;
        Ok((name, serde_json::from_str(&text)?))
    };
    ["report", "flow", "diff", "why", "join", "joined"].into_iter().map(read).collect()
});

/// Checks an object that was written.
///
/// # Errors
/// Its type has no schema, it differs from it, or it has a name that is not described.
pub fn check(object: &Value) -> Result<()> {
    let name = object["type"].as_str().context("an object without a type")?;
    let schema = schema(name)?;
    meets(object, schema).with_context(|| format!("docs/schema/{name}.json and {object}"))
}

fn schema(name: &str) -> Result<&'static Value> {
    let all = SCHEMAS.as_ref().map_err(|error| anyhow::anyhow!("read docs/schema: {error:#}"))?;
    let found = all.iter().find(|(known, _)| *known == name);
    found.map(|(_, schema)| schema).with_context(|| format!("docs/schema has no {name}.json"))
}

fn meets(value: &Value, schema: &Value) -> Result<()> {
    for (keyword, wanted) in schema.as_object().context("a schema is an object")? {
        match keyword.as_str() {
            "$schema" | "$id" | "title" | "description" => {}
            "$ref" => {
                let name = wanted.as_str().and_then(|name| name.strip_suffix(".json"));
                meets(value, self::schema(name.context("a reference to a file")?)?)?;
            }
            "const" => ensure!(value == wanted, "{value} is not {wanted}"),
            "minimum" => {
                ensure!(value.as_f64() >= wanted.as_f64() || !value.is_number(), "{value} is below {wanted}");
            }
            "type" => {
                let is = |name: &Value| name.as_str().is_some_and(|name| is_of(value, name));
                let any = wanted.as_array().map_or_else(|| is(wanted), |names| names.iter().any(is));
                ensure!(any, "{value} is not of type {wanted}");
            }
            "items" => {
                for element in value.as_array().into_iter().flatten() {
                    meets(element, wanted)?;
                }
            }
            "properties" => {
                for (name, field) in value.as_object().into_iter().flatten() {
                    let described = wanted.get(name).with_context(|| format!("{name} is not described"))?;
                    meets(field, described).with_context(|| name.clone())?;
                }
            }
            "required" => {
                for name in wanted.as_array().into_iter().flatten().filter_map(Value::as_str) {
                    ensure!(!value.is_object() || value.get(name).is_some(), "{name} is missing");
                }
            }
            keyword => bail!("{keyword} is not checked"),
        }
    }
    Ok(())
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{check, meets};

    #[test]
    fn what_is_not_described_is_refused() {
        let side = json!({"path": "a", "from": "x", "to": "y", "exact": true});
        let good = json!({
            "type": "diff", "schema": 1, "old": side, "new": side, "changes": [], "expectations": [],
        });
        check(&good).expect("it is described");
        let refused = |change: fn(&mut Value), said: &str| {
            let mut bad = good.clone();
            change(&mut bad);
            let wrong = format!("{:#}", check(&bad).expect_err(said));
            assert!(wrong.contains(said), "{wrong}");
        };
        refused(|bad| bad["new"]["exact"] = json!("yes"), "new: exact: \"yes\" is not of type");
        refused(|bad| bad["more"] = json!(1), "more is not described");
        refused(|bad| bad["old"] = json!({}), "path is missing");
        refused(|bad| bad["schema"] = json!("1"), "schema: \"1\" is not of type");
        refused(|bad| bad["type"] = json!("other"), "no other.json");
    }

    #[test]
    fn each_keyword_decides() {
        let table = [
            (json!({"const": 1}), json!(1), json!(2)),
            (json!({"minimum": 0}), json!(0), json!(-1)),
            (json!({"type": ["null", "integer"]}), json!(null), json!(0.5)),
            (json!({"type": "number"}), json!(7), json!("7")),
            (json!({"items": {"type": "string"}}), json!(["a"]), json!(["a", 1])),
            (json!({"required": ["a"]}), json!({"a": 1}), json!({"b": 1})),
            (json!({"properties": {"a": {"type": "array"}}}), json!({"a": []}), json!({"a": {}})),
        ];
        for (schema, good, bad) in table {
            meets(&good, &schema).expect("it meets it");
            assert!(meets(&bad, &schema).is_err(), "{schema} {bad}");
        }
        assert!(meets(&json!(1), &json!({"maximum": 5})).is_err(), "a keyword that is not checked");
    }
}
