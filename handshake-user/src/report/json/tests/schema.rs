//! The schemas in docs/schema: made of the tables in docs/json.md, which say what each field is and where it
//! is absent, and of the types that the samples of all fields have.
//!
//! `INSTA_UPDATE=always` writes them anew, as it does snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use handshake_agent::model::metric::METRICS;
use serde_json::{Map, Value, json};

use super::documented::{
    JOIN, WHY, check_samples, diff_samples, documented, flow_samples, join_samples, report_samples,
    why_samples,
};

/// A field, and what is below it.
#[derive(Clone, Debug, Default)]
struct Field {
    help: String,
    unit: String,
    /// Whether it is always there, where its parent is.
    required: bool,
    types: BTreeSet<&'static str>,
    fields: BTreeMap<String, Self>,
    order: Vec<String>,
    element: Option<Box<Self>>,
}

impl Field {
    fn below(&mut self, name: &str) -> &mut Self {
        if !self.fields.contains_key(name) {
            self.order.push(name.to_owned());
        }
        self.fields.entry(name.to_owned()).or_default()
    }

    /// The field at a path such as `source.skipped[].packets`.
    fn at(&mut self, path: &str) -> &mut Self {
        path.split('.').fold(self, |field, part| match part.strip_suffix("[]") {
            Some(name) => field.below(name).element.get_or_insert_default(),
            None => field.below(part),
        })
    }

    /// Adds the types of a sample, where the tables have its fields.
    fn learn(&mut self, sample: &Value) {
        self.types.insert(match sample {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        });
        match sample {
            Value::Array(elements) => elements.iter().for_each(|each| {
                self.element.get_or_insert_default().learn(each);
            }),
            Value::Object(fields) => fields.iter().for_each(|(name, field)| self.below(name).learn(field)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// An object is always there if something in it is, and so is an array of objects.
    fn settle(&mut self) {
        self.fields.values_mut().for_each(Self::settle);
        self.element.iter_mut().for_each(|element| element.settle());
        let is_of_objects = |element: &Self| {
            element.types.contains("object") && element.fields.values().any(|field| field.required)
        };
        self.required |= self.fields.values().any(|field| field.required)
            || self.element.as_deref().is_some_and(is_of_objects);
    }

    fn schema(&self) -> Value {
        let mut schema = Map::new();
        if !self.help.is_empty() {
            schema.insert("description".to_owned(), json!(self.help));
        }
        let mut types = self.types.clone();
        // A number may be a whole one.
        if self.unit == "as `unit`" {
            types.insert("number");
        }
        if types.contains("number") {
            types.remove("integer");
        }
        match types.iter().collect::<Vec<_>>()[..] {
            [] => {}
            [one] => {
                schema.insert("type".to_owned(), json!(one));
            }
            _ => {
                schema.insert("type".to_owned(), json!(types));
            }
        }
        let counts = !self.unit.is_empty() && self.unit != "1" && !self.unit.starts_with("as ");
        if counts && types.contains("integer") {
            schema.insert("minimum".to_owned(), json!(0));
        }
        if let Some(element) = &self.element {
            schema.insert("items".to_owned(), element.schema());
        }
        if !self.fields.is_empty() {
            let fields = self.order.iter().map(|name| (name.clone(), self.fields[name].schema()));
            schema.insert("properties".to_owned(), Value::Object(fields.collect()));
            let required: Vec<&String> =
                self.order.iter().filter(|name| self.fields[*name].required).collect();
            schema.insert("required".to_owned(), json!(required));
        }
        Value::Object(schema)
    }

    /// Nothing in it need be there, and figures may be negative.
    fn loosened(mut self) -> Self {
        self.required = false;
        self.unit.clear();
        self.fields = self.fields.into_iter().map(|(name, field)| (name, field.loosened())).collect();
        self
    }
}

/// The fields of a section's table.
fn of_section(heading: &str) -> Field {
    let mut whole = Field::default();
    for (path, unit, help, absent) in documented(heading) {
        if path.ends_with(".*") {
            continue;
        }
        let field = whole.at(&path);
        (field.unit, field.help) = (unit, plain(&help));
        field.required = absent.is_empty();
        // An array is described by its elements' row, and it is there where that says so.
        if let Some(array) = path.strip_suffix("[]") {
            let required = field.required;
            whole.at(array).required = required;
        }
    }
    whole
}

/// A text without Markdown's links.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("](") {
        out.push_str(&before.replace('[', ""));
        rest = behind.split_once(')').map_or("", |(_, rest)| rest);
    }
    out + rest
}

fn titled(name: &str, title: &str, schema: Value) -> Value {
    let mut object = Map::new();
    object.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    object.insert("$id".to_owned(), json!(format!("{name}.json")));
    object.insert("title".to_owned(), json!(title));
    if let Value::Object(schema) = schema {
        object.extend(schema);
    }
    object["properties"]["type"] = json!({"const": name});
    Value::Object(object)
}

fn report_schema() -> Value {
    let mut report = of_section("## A report");
    let mut added = of_section("## What check adds");
    for name in added.order.clone() {
        let field = added.fields.remove(&name).expect("it is in the order");
        *report.below(&name) = field;
    }
    // Their sentences stand for themselves, and rows of a table may lean on those before them.
    for metric in METRICS.iter() {
        metric.help.clone_into(&mut report.at(&metric.name).help);
    }
    *report.at("services[]") = of_section("## A service");
    report_samples().iter().chain(&check_samples()).for_each(|sample| report.learn(sample));
    report.settle();
    // What the table gives by the name of the whole.
    let [packets, tcp] = ["packets", "tcp"].map(|name| report.fields[name].clone().loosened());
    let latency = report.fields["latency"].clone().loosened();
    for path in ["source.interfaces[].packets", "source.gone.packets"] {
        *report.at(path) = packets.clone();
    }
    *report.at("interval.tcp") = tcp;
    *report.at("interval.latency") = latency;
    for name in ["expectations", "command", "kernel", "interval", "flows"] {
        report.below(name).required = false;
    }
    let mut schema = report.schema();
    schema["properties"]["flows"]["items"] = json!({"$ref": "flow.json"});
    titled("report", "A report of handshake, schema 1", schema)
}

fn flow_schema() -> Value {
    let mut flow = of_section("## A flow");
    flow_samples().iter().for_each(|sample| flow.learn(sample));
    flow.settle();
    titled("flow", "A flow in the output of handshake, schema 1", flow.schema())
}

fn diff_schema() -> Value {
    let mut diff = of_section("## A comparison");
    *diff.at("expectations[]") = of_section("## What check adds").at("expectations[]").clone();
    diff_samples().iter().for_each(|sample| diff.learn(sample));
    for sample in check_samples() {
        for each in sample["expectations"].as_array().into_iter().flatten() {
            diff.at("expectations[]").learn(each);
        }
    }
    diff.settle();
    titled("diff", "A comparison of two reports of handshake, schema 1", diff.schema())
}

fn why_schema() -> Value {
    let mut why = of_section(WHY);
    why_samples().iter().for_each(|sample| why.learn(sample));
    let help = std::mem::take(&mut why.at("inexact").help);
    let mut report = of_section("## A report");
    report_samples().iter().for_each(|sample| report.learn(sample));
    *why.at("inexact") = report.at("inexact").clone();
    why.at("inexact").help = help;
    why.settle();
    titled("why", "An answer of handshake why, schema 1", why.schema())
}

fn join_schemas() -> [Value; 2] {
    let titles = [
        ("join", "Two accounts joined by handshake, schema 1"),
        ("joined", "An attempt of two joined accounts, schema 1"),
    ];
    let mut samples = join_samples().into_iter();
    [0, 1].map(|at| {
        let mut whole = of_section(JOIN[at]);
        samples.next().iter().flatten().for_each(|sample| whole.learn(sample));
        whole.settle();
        titled(titles[at].0, titles[at].1, whole.schema())
    })
}

#[test]
fn schemas_are_those_of_the_documented_fields() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
    let may_write = std::env::var_os("INSTA_UPDATE").is_some_and(|value| value == "always");
    let [join, joined] = join_schemas();
    let schemas = [
        ("report", report_schema()),
        ("flow", flow_schema()),
        ("diff", diff_schema()),
        ("why", why_schema()),
        ("join", join),
        ("joined", joined),
    ];
    for (name, schema) in schemas {
        let (path, text) = (folder.join(format!("{name}.json")), format!("{schema:#}\n"));
        let there = fs::read_to_string(&path).unwrap_or_default();
        if there != text && may_write {
            fs::write(&path, &text).expect("it can be written");
        } else {
            assert!(there == text, "{} is not what docs/json.md says: INSTA_UPDATE=always", path.display());
        }
    }
    // Read only now.
    let samples = [report_samples(), check_samples(), flow_samples(), diff_samples(), why_samples()].concat();
    let samples = [samples, join_samples().concat()].concat();
    assert!(samples.len() > 10);
    for sample in &samples {
        handshake_lab::schema::check(sample).unwrap_or_else(|wrong| panic!("{wrong:#}"));
    }
}
