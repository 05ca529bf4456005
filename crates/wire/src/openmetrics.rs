//! The text in which metrics are read from the admin address (OpenMetrics 1.0), taken apart again. What is no line of it is
//! passed over.

/// A sample: name, labels in their order, value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

/// A metric family: what is said of it, and its samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    pub name: String,
    /// `counter`, `gauge`, `histogram` …
    pub kind: String,
    pub help: String,
    pub unit: String,
    pub samples: Vec<Sample>,
}

/// Every family, in the order of the text. A sample belongs to the family whose name begins its own and stands before it.
pub fn families(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            describe(&mut families, comment);
        } else if let Some(family) = families.last_mut()
            && let Some(sample) = sample(line)
            && sample.name.starts_with(&family.name)
        {
            family.samples.push(sample);
        }
    }
    families
}

/// `HELP name text`, `TYPE name kind`, `UNIT name unit`.
fn describe(families: &mut Vec<Family>, comment: &str) {
    let mut words = comment.splitn(3, ' ');
    let (Some(what), Some(name), Some(text)) = (words.next(), words.next(), words.next()) else { return };
    if families.last().is_none_or(|family| family.name != name) {
        let (kind, help, unit) = (String::new(), String::new(), String::new());
        families.push(Family { name: name.to_owned(), kind, help, unit, samples: Vec::new() });
    }
    let Some(family) = families.last_mut() else { return };
    match what {
        "HELP" => family.help = unescaped(text),
        "TYPE" => family.kind = text.to_owned(),
        "UNIT" => family.unit = text.to_owned(),
        _ => {}
    }
}

fn unescaped(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\\"", "\"").replace("\\\\", "\\")
}

/// `name{label="value",…} 1.5`
pub fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, rest)) = series.split_once('{') else {
        return Some(Sample { name: series.to_owned(), labels: Vec::new(), value });
    };
    let mut labels = Vec::new();
    let mut rest = rest.strip_suffix('}')?;
    while let Some((name, after)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.push((name.trim_start_matches(',').to_owned(), value));
        rest = after.get(end + 1..)?;
    }
    Some(Sample { name: name.to_owned(), labels, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn families_have_their_samples_and_what_is_said_of_them() {
        let found = families(
            "# HELP a_b Said of \\\"a\\\".\n# TYPE a_b counter\na_b_total{x=\"1\",y=\"q\\\"u\\\\o\\n\"} 3\nother 7\n\
             # HELP t_seconds Time.\n# TYPE t_seconds gauge\n# UNIT t_seconds seconds\nt_seconds 1.5\nno sample\n# EOF\n",
        );
        let labels = vec![("x".to_owned(), "1".to_owned()), ("y".to_owned(), "q\"u\\o\n".to_owned())];
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].kind.as_str(), found[0].help.as_str()), ("counter", "Said of \"a\"."));
        assert_eq!(found[0].samples, [Sample { name: "a_b_total".into(), labels, value: 3.0 }]);
        assert_eq!((found[1].unit.as_str(), found[1].samples[0].value), ("seconds", 1.5));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text: String) {
            let _ = families(&text);
            let _ = sample(&text);
        }
    }
}
