//! Numbers as CSV and as JSON lines.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::Metrics;
use crate::RunError;

/// `metrics.csv`: a column for each name; one that turns up later widens the file.
#[derive(Debug)]
pub struct Csv {
    path: PathBuf,
    file: File,
    columns: Vec<String>,
}

impl Csv {
    /// Opens the file and keeps its rows up to `step`.
    pub fn open(path: PathBuf, step: u64) -> Result<Self, RunError> {
        let text = text_of(&path)?;
        let mut lines = whole_lines(&text);
        let columns: Vec<String> =
            lines.next().unwrap_or_default().split(',').skip(1).map(String::from).collect();
        let mut kept = if text.is_empty() { String::new() } else { header(&columns) };
        let done =
            |line: &&str| line.split(',').next().and_then(|n| n.parse().ok()).is_some_and(|n: u64| n <= step);
        for line in lines.filter(done) {
            kept += line;
            kept += "\n";
        }
        let file = replace(&path, &kept)?;
        Ok(Self { path, file, columns })
    }

    /// Adds a row.
    pub fn write(&mut self, step: u64, metrics: &Metrics) -> Result<(), RunError> {
        let known = self.columns.len();
        for (name, _) in metrics {
            if !self.columns.contains(name) {
                self.columns.push(name.clone());
            }
        }
        if self.columns.len() > known {
            let text = text_of(&self.path)?;
            let mut kept = header(&self.columns);
            for line in whole_lines(&text).skip(1) {
                kept += line;
                kept += &",".repeat(self.columns.len() - known);
                kept += "\n";
            }
            self.file = replace(&self.path, &kept)?;
        }
        let mut line = step.to_string();
        for column in &self.columns {
            line.push(',');
            if let Some((_, value)) = metrics.iter().find(|(name, _)| name == column) {
                line += &value.to_string();
            }
        }
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(RunError::io(&self.path))
    }
}

fn header(columns: &[String]) -> String {
    columns.iter().fold("step".to_string(), |line, column| line + "," + column) + "\n"
}

/// `metrics.jsonl`: one object a line.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: File,
}

impl JsonLines {
    /// Opens the file and keeps its lines up to `step`.
    pub fn open(path: PathBuf, step: u64) -> Result<Self, RunError> {
        let text = text_of(&path)?;
        let done = |line: &&str| {
            let line: Option<Value> = serde_json::from_str(line).ok();
            line.and_then(|line| line.get("step")?.as_u64()).is_some_and(|n| n <= step)
        };
        let kept: String = whole_lines(&text).filter(done).flat_map(|line| [line, "\n"]).collect();
        let file = replace(&path, &kept)?;
        Ok(Self { path, file })
    }

    /// Adds a line.
    pub fn write(&mut self, step: u64, metrics: &Metrics) -> Result<(), RunError> {
        let mut object = Map::from_iter([("step".to_string(), json!(step))]);
        object.extend(metrics.iter().map(|(name, value)| (name.clone(), json!(value))));
        let line = Value::Object(object).to_string() + "\n";
        self.file.write_all(line.as_bytes()).map_err(RunError::io(&self.path))
    }
}

fn text_of(path: &Path) -> Result<String, RunError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(RunError::io(path)(error)),
    }
}

/// The lines that end; a process that was killed may have left half of one.
fn whole_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'))
}

/// Writes the file anew, whole or not at all, and opens it at its end.
fn replace(path: &Path, text: &str) -> Result<File, RunError> {
    let part = path.with_extension("part");
    std::fs::write(&part, text).map_err(RunError::io(&part))?;
    std::fs::rename(&part, path).map_err(RunError::io(path))?;
    OpenOptions::new().append(true).open(path).map_err(RunError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_after_the_checkpoint_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let (csv, lines) = (folder.path().join("m.csv"), folder.path().join("m.jsonl"));
        let metrics = |loss| vec![("loss".to_string(), loss)];
        let mut table = Csv::open(csv.clone(), 0).unwrap();
        let mut json = JsonLines::open(lines.clone(), 0).unwrap();
        for step in 1..=3 {
            table.write(step, &metrics(step as f64 / 4.0)).unwrap();
            json.write(step, &metrics(step as f64 / 4.0)).unwrap();
        }
        // Killed in the middle of a line.
        OpenOptions::new().append(true).open(&lines).unwrap().write_all(b"{\"step\":1,").unwrap();
        let mut table = Csv::open(csv.clone(), 2).unwrap();
        JsonLines::open(lines.clone(), 2).unwrap();
        assert_eq!(std::fs::read_to_string(&csv).unwrap(), "step,loss\n1,0.25\n2,0.5\n");
        let text = std::fs::read_to_string(&lines).unwrap();
        assert_eq!(text, "{\"loss\":0.25,\"step\":1}\n{\"loss\":0.5,\"step\":2}\n");

        table.write(3, &vec![("loss".into(), 1.0), ("disc".into(), 2.0)]).unwrap();
        let text = std::fs::read_to_string(&csv).unwrap();
        assert_eq!(text, "step,loss,disc\n1,0.25,\n2,0.5,\n3,1,2\n");
    }
}
