//! What a benchmark says: a table for people and `target/reports/NAME.json` for programs, from the same rows.
//! Every figure in a document is one of these.
use crate::run::{output, program, root};
use anyhow::Result;
use serde::Serialize;
use std::fs;

#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) name: &'static str,
    pub(crate) machine: String,
    pub(crate) rows: Vec<Row>,
}

/// One figure: what was measured, of whom, and against whom it is judged.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) case: String,
    pub(crate) subject: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) against: Option<String>,
    pub(crate) ratio: Option<f64>,
    pub(crate) target: Option<f64>,
    pub(crate) met: Option<bool>,
    /// Lowest and highest round.
    pub(crate) spread: (f64, f64),
    /// Each round's figure; of a comparison, each round's ratio.
    pub(crate) rounds: Vec<f64>,
}

impl Report {
    pub(crate) fn new(name: &'static str) -> Report {
        Report { name, machine: machine(), rows: Vec::new() }
    }

    /// A measured figure without a target.
    pub(crate) fn add(&mut self, case: &str, subject: &str, unit: &'static str, rounds: &[f64]) {
        self.rows.push(Row {
            case: case.to_owned(),
            subject: subject.to_owned(),
            value: median(rounds),
            unit,
            against: None,
            ratio: None,
            target: None,
            met: None,
            spread: spread(rounds),
            rounds: rounds.to_vec(),
        });
    }

    /// A row that compares two figures measured before: `case` of `subject` over `other_case` of `other`, round by round,
    /// so that a machine that grows slower over the rounds does not enter. The median of the ratios is judged.
    pub(crate) fn compare(
        &mut self,
        (case, subject): (&str, &str),
        (other_case, other): (&str, &str),
        target: Option<f64>,
    ) {
        let of = |case: &str, subject: &str| {
            self.rows.iter().find(|row| row.case == case && row.subject == subject && row.against.is_none())
        };
        let (Some(ours), Some(theirs)) = (of(case, subject), of(other_case, other)) else { return };
        let ratios: Vec<f64> = ours.rounds.iter().zip(&theirs.rounds).map(|(ours, theirs)| ours / theirs).collect();
        let ratio = median(&ratios);
        let row = Row {
            case: case.to_owned(),
            subject: subject.to_owned(),
            value: ours.value,
            unit: ours.unit,
            against: Some(format!("{other}, {other_case}")),
            ratio: Some(ratio),
            target,
            met: target.map(|target| ratio <= target),
            spread: spread(&ratios),
            rounds: ratios,
        };
        self.rows.push(row);
    }

    /// A figure measured before.
    pub(crate) fn value(&self, case: &str, subject: &str) -> Option<f64> {
        self.rows.iter().find(|row| row.case == case && row.subject == subject).map(|row| row.value)
    }

    /// A target on a figure itself.
    pub(crate) fn limit(&mut self, case: &str, subject: &str, target: f64) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.case == case && row.subject == subject) {
            row.target = Some(target);
            row.met = Some(row.value <= target);
        }
    }

    /// Prints the table and writes the JSON file.
    pub(crate) fn publish(&self) -> Result<()> {
        println!("\n{} on {}\n", self.name, self.machine);
        println!("| case | subject | value | spread | against | ratio | target | met |");
        println!("|---|---|---:|---|---|---:|---:|---|");
        for row in &self.rows {
            println!("{}", line(row));
        }
        let folder = root().join("target/reports");
        fs::create_dir_all(&folder)?;
        let file = folder.join(format!("{}.json", self.name));
        fs::write(&file, serde_json::to_string_pretty(self)?)?;
        println!("\nwritten to {}", file.display());
        Ok(())
    }
}

fn line(row: &Row) -> String {
    let optional = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.2}"));
    let spread = format!("{:.1}–{:.1}", row.spread.0, row.spread.1);
    let spread = if row.against.is_some() { format!("{:.2}–{:.2}", row.spread.0, row.spread.1) } else { spread };
    let met = row.met.map_or("", |met| if met { "yes" } else { "NO" });
    let against = row.against.as_deref().unwrap_or_default();
    let (ratio, target) = (optional(row.ratio), optional(row.target));
    format!(
        "| {} | {} | {:.1} {} | {spread} | {against} | {ratio} | {target} | {met} |",
        row.case, row.subject, row.value, row.unit
    )
}

fn spread(rounds: &[f64]) -> (f64, f64) {
    let lowest = rounds.iter().copied().fold(f64::INFINITY, f64::min);
    (lowest, rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    if sorted.len() % 2 == 1 { at(middle) } else { f64::midpoint(at(middle.wrapping_sub(1)), at(middle)) }
}

/// Cores, processor and kernel: figures of other machines do not compare.
fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpu.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, value)| value.trim()).to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = output(program("uname", &["-r"])).unwrap_or_default();
    format!("{} ({cores} cores), Linux {}", field("model name"), kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let check = |values: &[f64], expected: f64| assert!((median(values) - expected).abs() < 1e-9, "{values:?}");
        check(&[3.0, 1.0, 2.0], 2.0);
        check(&[4.0, 1.0, 2.0, 3.0], 2.5);
        check(&[7.0], 7.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_ratio_is_judged_by_its_target() {
        let mut report = Report { name: "test", machine: String::new(), rows: Vec::new() };
        // Slower by a half in the second round, both of them.
        report.add("plain", "ours", "µs", &[11.0, 16.5, 12.0]);
        report.add("plain", "nginx", "µs", &[10.0, 15.0, 10.0]);
        report.compare(("plain", "ours"), ("plain", "nginx"), Some(1.15));
        report.compare(("plain", "ours"), ("plain", "nginx"), None);
        report.compare(("plain", "ours"), ("plain", "absent"), Some(1.15));
        let met: Vec<_> = report.rows.iter().map(|row| row.met).collect();
        assert_eq!(met, [None, None, Some(true), None]);
        let ratio = report.rows.get(2).unwrap();
        assert!((ratio.ratio.unwrap() - 1.1).abs() < 1e-9 && (ratio.spread.1 - 1.2).abs() < 1e-9);
        report.limit("plain", "nginx", 9.0);
        assert_eq!(report.rows.get(1).and_then(|row| row.met), Some(false));
        assert_eq!((report.value("plain", "nginx"), report.value("plain", "absent")), (Some(10.0), None));
    }
}
