//! What is published beside the code says what the code does: the committed JSON Schemas, the reference page, the example.
//! `COUNTERSIGN_UPDATE=1 cargo test -p countersign --test binary published` writes the generated ones anew.
use countersign::config::{self, schema};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn check_generated(path: &str, expected: &str) {
    let path = root().join(path);
    if std::env::var_os("COUNTERSIGN_UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let hint = "run: COUNTERSIGN_UPDATE=1 cargo test -p countersign --test binary published";
    assert!(found == expected, "{} is stale; {hint}", path.display());
}

#[test]
fn committed_schemas_are_current() {
    check_generated("schema/countersign.schema.json", &schema::text(&schema::platform()));
    check_generated("schema/service.schema.json", &schema::text(&schema::service()));
}

/// Every mapping of a schema: where it is, its keys, those it needs.
fn sections(schema: &Value) -> Vec<(String, Vec<String>, Vec<String>)> {
    let names = |v: Option<&Value>| -> Vec<String> {
        v.and_then(Value::as_array)
            .map(|a| a.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            .unwrap_or_default()
    };
    let mut all = vec![("file".to_owned(), schema)];
    all.extend(schema["$defs"].as_object().unwrap().iter().map(|(name, schema)| (name.clone(), schema)));
    let keyed = all.into_iter().filter(|(_, schema)| schema["properties"].is_object());
    keyed
        .map(|(name, schema)| {
            assert_eq!(schema["additionalProperties"], false, "{name} refuses unknown keys");
            let keys = schema["properties"].as_object().unwrap().keys().cloned().collect();
            (name, keys, names(schema.get("required")))
        })
        .collect()
}

#[test]
fn decoder_and_schema_know_the_same_keys() {
    use config::platform::*;
    use config::service::*;
    use config::telemetry::*;
    use config::token_endpoint::*;
    use config::token_kinds::*;
    let check = |schema: &Value, expected: &[(&str, &[&str])]| {
        let mut got = sections(schema);
        let mut expected: Vec<(String, Vec<String>)> =
            expected.iter().map(|(n, k)| (n.to_string(), k.iter().map(|k| k.to_string()).collect())).collect();
        got.sort();
        expected.sort();
        let got: Vec<(String, Vec<String>)> = got.into_iter().map(|(name, keys, _)| (name, keys)).collect();
        assert_eq!(got, expected);
    };
    check(
        &schema::platform(),
        &[
            ("file", PlatformFile::KEYS),
            ("IssuerSection", IssuerSection::KEYS),
            ("ClaimsSection", ClaimsSection::KEYS),
            ("DpopSection", DpopSection::KEYS),
            ("IntrospectionSection", IntrospectionSection::KEYS),
            ("GraphSection", GraphSection::KEYS),
            ("ClientAuthSection", ClientAuthSection::KEYS),
            ("EdgeSection", EdgeSection::KEYS),
            ("TrustedProxiesSection", TrustedProxiesSection::KEYS),
            ("TlsSection", TlsSection::KEYS),
            ("EdgeLimits", EdgeLimits::KEYS),
            ("EdgeTimeouts", EdgeTimeouts::KEYS),
            ("AuthzSection", AuthzSection::KEYS),
            ("AuthzFieldsSection", AuthzFieldsSection::KEYS),
            ("TokenEndpointSection", TokenEndpointSection::KEYS),
            ("TokenTlsSection", TokenTlsSection::KEYS),
            ("AdminSection", AdminSection::KEYS),
            ("AuditSection", AuditSection::KEYS),
            ("RotateSection", RotateSection::KEYS),
            ("AccessLogSection", AccessLogSection::KEYS),
            ("TelemetrySection", TelemetrySection::KEYS),
            ("TracesSection", TracesSection::KEYS),
            ("TelemetryMetricsSection", TelemetryMetricsSection::KEYS),
            ("LogSection", LogSection::KEYS),
        ],
    );
    check(
        &schema::service(),
        &[
            ("file", ServiceFile::KEYS),
            ("UpstreamSection", UpstreamSection::KEYS),
            ("HealthSection", HealthSection::KEYS),
            ("OutliersSection", OutliersSection::KEYS),
            ("RetriesSection", RetriesSection::KEYS),
            ("WebSocketSection", WebSocketSection::KEYS),
            ("ExposeSection", ExposeSection::KEYS),
            ("RuleSection", RuleSection::KEYS),
            ("TestSection", TestSection::KEYS),
            ("TolerateSection", TolerateSection::KEYS),
            ("ServiceLimits", ServiceLimits::KEYS),
            ("CorsSection", CorsSection::KEYS),
            ("ResourceSection", ResourceSection::KEYS),
        ],
    );
}

#[test]
fn decoder_and_schema_need_the_same_keys() {
    let check = |name: &str, empty: &str, schema: &Value| {
        let files = config::Memory::default()
            .with("c.yaml", if name == "platform" { empty } else { PLATFORM }, 0o640)
            .with("services/a.yaml", if name == "platform" { SERVICE } else { empty }, 0o640);
        let problems = config::load(Path::new("c.yaml"), &files).err().unwrap();
        let missing: Vec<&str> = problems
            .iter()
            .filter(|p| p.what.contains("is missing"))
            .filter_map(|p| p.what.split('`').nth(1))
            .collect();
        let (_, _, needed) = &sections(schema)[0];
        assert_eq!(&missing, needed, "{name}");
    };
    check("platform", "log: {}\n", &schema::platform());
    check("service", "tolerate: {}\n", &schema::service());
}

const PLATFORM: &str = "version: 1\ntrust_domain: a\nedge: { listen: 127.0.0.1:0 }\nservices: services/*.yaml\n";
const SERVICE: &str = "service: a\nupstream: http://a\n";

#[test]
fn the_quickstart_names_its_schemas() {
    for (file, schema) in
        [("countersign.yaml", "countersign.schema.json"), ("services/orders.yaml", "service.schema.json")]
    {
        let path = root().join("examples/quickstart").join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        let first = text.lines().next().unwrap();
        let named = first.strip_prefix("# yaml-language-server: $schema=").unwrap();
        assert!(named.ends_with(schema), "{first}");
        assert!(path.parent().unwrap().join(named).is_file(), "{first}");
    }
}

/// The type of a value, in words.
fn kind(schema: &Value) -> String {
    if let Some(words) = schema["enum"].as_array() {
        return words.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        let mut kinds: Vec<String> = choices.iter().map(kind).collect();
        kinds.dedup();
        return kinds.join(" or ");
    }
    if let Some(section) = schema["$ref"].as_str() {
        let name = section.trim_start_matches("#/$defs/");
        return if name == "UpstreamValue" {
            "URL, list of URLs, or [mapping](#upstreamsection)".to_owned()
        } else {
            link(name)
        };
    }
    let plain = match &schema["type"] {
        Value::Array(kinds) => kinds.first().and_then(Value::as_str).unwrap_or_default(),
        kind => kind.as_str().unwrap_or_default(),
    };
    match plain {
        "string" if schema["pattern"].as_str().is_some_and(|pattern| pattern.contains("ms")) => "duration".to_owned(),
        "string" if schema["pattern"].as_str().is_some_and(|pattern| pattern.contains('%')) => "percentage".to_owned(),
        "string" if schema["pattern"].as_str().is_some_and(|pattern| pattern.contains("{3}")) => {
            "status or range".to_owned()
        }
        "string" if schema["pattern"].is_string() => "size".to_owned(),
        "string" => "text".to_owned(),
        "integer" => "number".to_owned(),
        "boolean" => "true, false".to_owned(),
        "array" => format!("list of {}", kind(&schema["items"])),
        _ => format!("name: {}", kind(&schema["additionalProperties"])),
    }
}

fn link(name: &str) -> String {
    format!("[mapping](#{})", name.to_lowercase())
}

fn reference(title: &str, schema: &Value) -> String {
    let mut sections = vec![(title.to_owned(), schema)];
    sections.extend(schema["$defs"].as_object().unwrap().iter().map(|(name, schema)| (name.clone(), schema)));
    let mut out = String::new();
    for (name, section) in sections {
        let Some(properties) = section["properties"].as_object() else { continue };
        let needed: Vec<&str> =
            section["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let about = section["description"].as_str().unwrap_or_default();
        out.push_str(&format!("### {name}\n\n{about}\n\n| key | type | meaning |\n|---|---|---|\n"));
        for (key, value) in properties {
            let shown = if needed.contains(&key.as_str()) { format!("**`{key}`**") } else { format!("`{key}`") };
            let about = value["description"].as_str().unwrap_or_default().replace('|', "\\|");
            out.push_str(&format!("| {shown} | {} | {about} |\n", kind(value)));
        }
        out.push('\n');
    }
    out
}

#[test]
fn the_reference_page_is_current() {
    let path = root().join("docs/config.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = page.split_once("<!-- generated -->\n").unwrap();
    let (_, tail) = rest.split_once("<!-- end -->").unwrap();
    let tables = [reference("countersign.yaml", &schema::platform()), reference("services/*.yaml", &schema::service())];
    check_generated("docs/config.md", &format!("{head}<!-- generated -->\n{}<!-- end -->{tail}", tables.concat()));
}

#[test]
fn the_command_line_page_names_every_command_and_option() {
    use clap::CommandFactory as _;
    let page = std::fs::read_to_string(root().join("docs/cli.md")).unwrap();
    let mut open = vec![countersign::cli::Cli::command()];
    while let Some(command) = open.pop() {
        assert!(page.contains(command.get_name()), "{}", command.get_name());
        for option in command
            .get_arguments()
            .filter_map(clap::Arg::get_long)
            .filter(|o| !["help", "version", "config"].contains(o))
        {
            assert!(page.contains(&format!("--{option}")), "{} --{option}", command.get_name());
        }
        open.extend(command.get_subcommands().cloned());
    }
}

#[test]
fn the_operations_page_names_every_reason_with_its_status() {
    let page = std::fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    for reason in trust::reason::Reason::ALL {
        let (code, status) = (format!("`{}`", reason.code()), format!("| {} |", reason.public().status));
        let named =
            rows.iter().any(|row| row.split(" | ").next().is_some_and(|c| c.contains(&code)) && row.contains(&status));
        assert!(named, "{code} {status}");
    }
}
