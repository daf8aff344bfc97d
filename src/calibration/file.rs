//! The TOML form of a calibration.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::Calibration;
use super::prior::Prior;
use crate::taxonomy::CategoryId;

/// Counted up when the file changes in a way that an older reader would misread.
const FORMAT: u32 = 1;

/// Temperatures beyond these make every answer certain, or all labels alike.
const TEMPERATURES: std::ops::RangeInclusive<f64> = 0.01..=100.0;

/// Why there is no calibration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrationError {
    /// No answer had probabilities.
    #[error("no answer has probabilities to measure: the server must give log-probabilities")]
    NothingToMeasure,
    /// The answers come from more than one model or prompt.
    #[error("the answers come from more than one model or prompt: calibrate one at a time")]
    Mixed,
    /// The run that was to measure the priors came to nothing.
    #[error("the items that measure the priors were not answered: {reason}")]
    NotAnswered {
        /// The first reason.
        reason: String,
    },
    /// The file cannot be read or written.
    #[error("calibration file {path}: {reason}")]
    File {
        /// Its path.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// The text is no calibration.
    #[error("calibration file: {reason}")]
    Syntax {
        /// What is wrong, and where.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    model: String,
    taxonomy: String,
    prompt_version: String,
    temperature: f64,
    label_strength: f64,
    position_strength: f64,
    #[serde(default)]
    prior: Vec<FilePrior>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilePrior {
    pack_size: usize,
    position: usize,
    items: u64,
    shares: BTreeMap<String, f64>,
}

impl Calibration {
    /// Reads a calibration from a TOML file.
    ///
    /// # Errors
    /// [`CalibrationError::File`] or [`CalibrationError::Syntax`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, CalibrationError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| file_error(path, &error))?;
        Self::from_toml(&text)
    }

    /// Writes the calibration to a TOML file, which is replaced.
    ///
    /// # Errors
    /// [`CalibrationError::File`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), CalibrationError> {
        let path = path.as_ref();
        std::fs::write(path, self.to_toml()).map_err(|error| file_error(path, &error))
    }

    /// Reads a calibration from TOML.
    ///
    /// # Errors
    /// [`CalibrationError::Syntax`].
    pub fn from_toml(text: &str) -> Result<Self, CalibrationError> {
        let syntax = |reason: String| CalibrationError::Syntax { reason };
        let file: File = toml::from_str(text).map_err(|error| syntax(error.message().to_owned()))?;
        if file.format != FORMAT {
            return Err(syntax(format!("format {} is not known; this version reads format {FORMAT}", file.format)));
        }
        let need = |is_right: bool, problem: &str| if is_right { Ok(()) } else { Err(syntax(problem.to_owned())) };
        need(TEMPERATURES.contains(&file.temperature), "temperature must be 0.01 to 100")?;
        for strength in [file.label_strength, file.position_strength] {
            need((0.0..=1.0).contains(&strength), "strengths must be 0 to 1")?;
        }
        for prior in &file.prior {
            need((1..=prior.pack_size).contains(&prior.position), "a position must be 1 to its pack size")?;
            need(prior.shares.values().all(|share| (0.0..=1.0).contains(share)), "shares must be 0 to 1")?;
        }
        Ok(Self {
            model: file.model,
            taxonomy: file.taxonomy,
            prompt_version: file.prompt_version,
            temperature: file.temperature,
            label_strength: file.label_strength,
            position_strength: file.position_strength,
            priors: file.prior.into_iter().map(Into::into).collect(),
        })
    }

    /// The calibration as TOML, the same bytes for the same content.
    pub fn to_toml(&self) -> String {
        let mut text = format!(
            "# A calibration of slugline: corrects the probabilities that a model gives to labels.\n\
             format = {FORMAT}\nmodel = {}\ntaxonomy = {}\nprompt_version = {}\ntemperature = {:.4}\n\
             label_strength = {:.2}\nposition_strength = {:.2}\n",
            quoted(&self.model),
            quoted(&self.taxonomy),
            quoted(&self.prompt_version),
            self.temperature,
            self.label_strength,
            self.position_strength,
        );
        for prior in &self.priors {
            let (pack_size, position, items) = (prior.pack_size, prior.position, prior.items);
            text.push_str(&format!(
                "\n[[prior]]\npack_size = {pack_size}\nposition = {position}\nitems = {items}\n[prior.shares]\n"
            ));
            for (id, share) in &prior.shares {
                text.push_str(&format!("{} = {share:.6}\n", quoted(id.as_str())));
            }
        }
        text
    }
}

impl From<FilePrior> for Prior {
    fn from(file: FilePrior) -> Self {
        let shares = file.shares.into_iter().map(|(id, share)| (CategoryId::from(id), share)).collect();
        Self { pack_size: file.pack_size, position: file.position, items: file.items, shares }
    }
}

/// A TOML string: a JSON string is one, too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn file_error(path: &Path, error: &std::io::Error) -> CalibrationError {
    CalibrationError::File { path: path.display().to_string(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::super::tests::calibration;
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut written = calibration(&[(1, 1, [0.5, 0.25, 0.25]), (3, 2, [0.125, 0.375, 0.5])]);
        written.model = "a \"model\"\\ 1".into();
        let read = Calibration::from_toml(&written.to_toml()).unwrap();
        assert_eq!(read, written);
        assert_eq!(read.version(), written.version());
        written.temperature = 2.0;
        assert_ne!(read.version(), written.version());
    }

    #[test]
    fn what_is_no_calibration_is_said() {
        let good = calibration(&[(3, 2, [0.125, 0.375, 0.5])]).to_toml();
        for (from, to, reason) in [
            ("format = 1", "format = 2", "format 2 is not known"),
            ("temperature = 1.0000", "temperature = 0.0", "0.01 to 100"),
            ("position = 2", "position = 4", "1 to its pack size"),
            ("0.375000", "-1.0", "shares must be"),
            ("model = \"m\"", "", "missing field `model`"),
            ("label_strength = 1.00", "label_strength = nan", "strengths must be"),
        ] {
            let error = Calibration::from_toml(&good.replace(from, to)).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
        let error = Calibration::load("/nonexistent/calibration.toml").unwrap_err();
        assert!(error.to_string().starts_with("calibration file /nonexistent/calibration.toml: "), "{error}");
    }
}
