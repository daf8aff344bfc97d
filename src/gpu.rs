//! Use and memory of the GPUs of this machine, as `nvidia-smi` tells them.
//!
//! The log is that of `nvidia-smi --query-gpu=… --format=csv --loop=1`: it is [read](read_log) whatever columns it has, and
//! [written](GpuWatch::start) with all that are known here. On a machine without a GPU nothing is measured, and the log says
//! so once.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::alerts::{Measurement, Signal};

/// The columns that are asked for.
const QUERY: &str = "timestamp,index,utilization.gpu,memory.used,memory.total,temperature.gpu,power.draw";

/// One GPU at one time. What `nvidia-smi` does not say is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct GpuSample {
    /// When, as `nvidia-smi` writes it: `2026/01/31 12:00:00.123`, local time.
    pub timestamp: String,
    /// The number of the GPU, from 0; 0 where the log does not have it.
    pub index: u32,
    /// The share of time in which it was busy, 0 to 1.
    pub utilization: Option<f64>,
    /// Memory in use, in MiB.
    pub memory_used_mib: Option<f64>,
    /// All memory, in MiB.
    pub memory_total_mib: Option<f64>,
    /// Degrees Celsius.
    pub temperature_c: Option<f64>,
    /// Watts.
    pub power_w: Option<f64>,
}

impl GpuSample {
    /// The share of memory in use, 0 to 1.
    pub fn memory_share(&self) -> Option<f64> {
        let total = self.memory_total_mib.filter(|total| *total > 0.0)?;
        Some((self.memory_used_mib? / total).clamp(0.0, 1.0))
    }
}

/// What GPUs say to [`Alerts`](crate::alerts::Alerts): their memory.
pub fn measurements(samples: &[GpuSample]) -> Vec<Measurement> {
    let memory = |sample: &GpuSample| {
        let share = sample.memory_share()?;
        Some(Measurement::new(Signal::GpuMemoryShare, share, 1).of(format!("gpu {}", sample.index)))
    };
    samples.iter().filter_map(memory).collect()
}

/// The columns of a log, from its first line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuColumns(Vec<Option<Column>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Timestamp,
    Index,
    Utilization,
    MemoryUsed,
    MemoryTotal,
    Temperature,
    Power,
}

impl GpuColumns {
    /// Reads the line with the names of the columns; none when it has none that is known. Units in brackets are ignored.
    ///
    /// ```
    /// use slugline::gpu::GpuColumns;
    ///
    /// let columns = GpuColumns::parse("timestamp, utilization.gpu [%], memory.used [MiB], memory.total [MiB]").unwrap();
    /// let sample = columns.sample("2026/01/31 12:00:00.123, 87 %, 14012 MiB, 16376 MiB").unwrap();
    /// assert_eq!((sample.utilization, sample.memory_used_mib), (Some(0.87), Some(14_012.0)));
    /// ```
    pub fn parse(header: &str) -> Option<Self> {
        let column = |name: &str| match name.split('[').next().unwrap_or_default().trim() {
            "timestamp" => Some(Column::Timestamp),
            "index" => Some(Column::Index),
            "utilization.gpu" => Some(Column::Utilization),
            "memory.used" => Some(Column::MemoryUsed),
            "memory.total" => Some(Column::MemoryTotal),
            "temperature.gpu" => Some(Column::Temperature),
            "power.draw" => Some(Column::Power),
            _ => None,
        };
        let columns: Vec<_> = header.split(',').map(column).collect();
        columns.iter().any(Option::is_some).then_some(Self(columns))
    }

    /// Reads a line; none when it has another number of columns or no figure at all.
    pub fn sample(&self, line: &str) -> Option<GpuSample> {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        if fields.len() != self.0.len() {
            return None;
        }
        let mut sample = GpuSample::default();
        let mut has_figure = false;
        for (column, field) in self.0.iter().zip(fields) {
            let figure = figure(field);
            match column {
                Some(Column::Timestamp) => field.clone_into(&mut sample.timestamp),
                Some(Column::Index) => sample.index = field.parse().ok()?,
                Some(Column::Utilization) => sample.utilization = figure.map(|percent| (percent / 100.0).min(1.0)),
                Some(Column::MemoryUsed) => sample.memory_used_mib = figure,
                Some(Column::MemoryTotal) => sample.memory_total_mib = figure,
                Some(Column::Temperature) => sample.temperature_c = figure,
                Some(Column::Power) => sample.power_w = figure,
                None => {}
            }
            has_figure |= figure.is_some() && !matches!(column, None | Some(Column::Timestamp | Column::Index));
        }
        has_figure.then_some(sample)
    }
}

/// The number of a field such as `87 %`; none for `[N/A]` and the like.
fn figure(field: &str) -> Option<f64> {
    let number = field.split_whitespace().next()?.parse::<f64>().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number)
}

/// Reads a whole log. Lines that are no samples are passed over; a line of names in the middle, of a log that was begun anew,
/// counts from there on.
///
/// # Errors
/// It cannot be read.
pub fn read_log(log: impl BufRead) -> io::Result<Vec<GpuSample>> {
    let mut samples = Vec::new();
    let mut columns = None;
    for line in log.lines() {
        samples.extend(read_line(&line?, &mut columns));
    }
    Ok(samples)
}

/// Takes a line of names for those that follow, or reads a sample.
fn read_line(line: &str, columns: &mut Option<GpuColumns>) -> Option<GpuSample> {
    if let Some(found) = GpuColumns::parse(line) {
        *columns = Some(found);
        return None;
    }
    columns.as_ref()?.sample(line)
}

/// Watches the GPUs of this machine, once a second, until it is dropped.
///
/// ```no_run
/// use slugline::{alerts::{Alerts, Rules}, gpu::{self, GpuWatch}};
///
/// let watch = GpuWatch::start(Some(Box::new(std::fs::File::create("gpu.csv")?)));
/// let mut alerts = Alerts::new(Rules::default());
/// alerts.look(&gpu::measurements(&watch.latest()));
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct GpuWatch {
    latest: Arc<Mutex<Vec<GpuSample>>>,
    child: Option<Child>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl GpuWatch {
    /// Starts `nvidia-smi` and reads what it says, on a thread. Its lines are written to `log` as they come, if there is one.
    ///
    /// Without `nvidia-smi`, or without a GPU, that is logged once and [`latest`](Self::latest) stays empty.
    pub fn start(log: Option<Box<dyn Write + Send>>) -> Self {
        let mut command = Command::new("nvidia-smi");
        command.arg(format!("--query-gpu={QUERY}")).args(["--format=csv", "--loop=1"]);
        Self::with_command(command, log)
    }

    /// The same with another command that writes such a log, for example `ssh gpu-2 nvidia-smi …`.
    pub fn with_command(mut command: Command, log: Option<Box<dyn Write + Send>>) -> Self {
        let latest = Arc::default();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                tracing::info!(%error, "no GPU is watched: nvidia-smi cannot be started");
                return Self { latest, child: None, reader: None };
            }
        };
        let reader = child.stdout.take().map(|out| {
            let latest = Arc::clone(&latest);
            std::thread::spawn(move || read(BufReader::new(out), &latest, log))
        });
        Self { latest, child: Some(child), reader }
    }

    /// The last sample of each GPU, in their order; empty when there is none.
    pub fn latest(&self) -> Vec<GpuSample> {
        lock(&self.latest).clone()
    }

    /// Whether the watch has ended by itself: there is no `nvidia-smi`, no GPU, or it was ended.
    pub fn is_over(&self) -> bool {
        self.reader.as_ref().is_none_or(std::thread::JoinHandle::is_finished)
    }
}

impl fmt::Debug for GpuWatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("GpuWatch").field("latest", &self.latest()).finish_non_exhaustive()
    }
}

impl Drop for GpuWatch {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Reads until the end of the output.
fn read(out: impl BufRead, latest: &Mutex<Vec<GpuSample>>, mut log: Option<Box<dyn Write + Send>>) {
    let mut columns = None;
    let mut has_sample = false;
    for line in out.lines() {
        let Ok(line) = line else { break };
        if let Some(file) = &mut log
            && writeln!(file, "{line}").and_then(|()| file.flush()).is_err()
        {
            tracing::warn!("the log of the GPUs cannot be written any more");
            log = None;
        }
        let Some(sample) = read_line(&line, &mut columns) else { continue };
        has_sample = true;
        #[cfg(feature = "metrics")]
        crate::metrics::gpu(&sample);
        let mut latest = lock(latest);
        match latest.binary_search_by_key(&sample.index, |other| other.index) {
            Ok(at) => latest[at] = sample,
            Err(at) => latest.insert(at, sample),
        }
    }
    lock(latest).clear();
    if !has_sample {
        tracing::info!("no GPU is watched: nvidia-smi names none");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "timestamp, index, utilization.gpu [%], memory.used [MiB], memory.total [MiB], temperature.gpu, power.draw [W]\n\
        2026/01/31 12:00:00.123, 0, 87 %, 14012 MiB, 16376 MiB, 64, 215.33 W\n\
        2026/01/31 12:00:00.125, 1, [N/A], 15500 MiB, 16376 MiB, [Not Supported], [N/A]\n\
        2026/01/31 12:00:01.123, 0, 100 %, 14020 MiB, 16376 MiB, 65, 220.00 W\n";

    #[test]
    fn a_log_is_read_as_nvidia_smi_writes_it() {
        let samples = read_log(LOG.as_bytes()).unwrap();
        assert_eq!(samples.len(), 3);
        let expected = GpuSample {
            timestamp: "2026/01/31 12:00:00.123".into(),
            index: 0,
            utilization: Some(0.87),
            memory_used_mib: Some(14_012.0),
            memory_total_mib: Some(16_376.0),
            temperature_c: Some(64.0),
            power_w: Some(215.33),
        };
        assert_eq!(samples[0], expected);
        assert_eq!((samples[1].utilization, samples[1].temperature_c, samples[1].power_w), (None, None, None));
        let found = measurements(&samples[..2]);
        assert_eq!(found[1].subject.as_deref(), Some("gpu 1"));
        assert!((found[1].value - 15_500.0 / 16_376.0).abs() < 1e-9);
    }

    #[test]
    fn the_log_of_the_reference_deployment_and_one_without_units_are_read() {
        let text = "timestamp, utilization.gpu [%], memory.used [MiB]\n2026/01/31 12:00:00.123, 5 %, 900 MiB\n";
        let samples = read_log(text.as_bytes()).unwrap();
        assert_eq!((samples[0].index, samples[0].memory_used_mib, samples[0].memory_share()), (0, Some(900.0), None));
        let columns = GpuColumns::parse("index,memory.used,memory.total").unwrap();
        assert_eq!(columns.sample("3,8188,16376").unwrap().memory_share(), Some(0.5));
    }

    #[test]
    fn odd_lines_are_passed_over() {
        let columns = GpuColumns::parse("timestamp, index, memory.used [MiB]").unwrap();
        for odd in ["", "x", "t, 0", "t, zero, 5 MiB", "t, 0, [N/A]", "t, 0, NaN", "t, 0, -5", "t, 0, 5, 6"] {
            assert_eq!(columns.sample(odd), None, "{odd}");
        }
        for odd in [
            "",
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
            "No devices were found",
        ] {
            assert_eq!(GpuColumns::parse(odd), None, "{odd}");
            assert_eq!(read_log(odd.as_bytes()).unwrap(), []);
        }
    }

    #[test]
    fn what_is_read_is_the_latest_and_is_written() {
        #[derive(Clone, Default)]
        struct Shared(Arc<Mutex<Vec<u8>>>);
        impl Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                lock(&self.0).write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        // What the latest was when the output ended.
        struct AtEnd<'a>(&'a [u8], &'a Mutex<Vec<GpuSample>>, &'a Mutex<Vec<GpuSample>>);
        impl io::Read for AtEnd<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if self.0.is_empty() {
                    *lock(self.2) = lock(self.1).clone();
                }
                self.0.read(buffer)
            }
        }
        let (latest, seen, written) = (Mutex::default(), Mutex::default(), Shared::default());
        read(BufReader::new(AtEnd(LOG.as_bytes(), &latest, &seen)), &latest, Some(Box::new(written.clone())));
        let seen = lock(&seen).clone();
        assert_eq!(seen.iter().map(|of| (of.index, of.utilization)).collect::<Vec<_>>(), [(0, Some(1.0)), (1, None)]);
        assert_eq!(lock(&latest).len(), 0, "what is over is no longer the latest");
        assert_eq!(String::from_utf8(lock(&written.0).clone()).unwrap(), LOG);
    }

    #[test]
    fn without_nvidia_smi_there_is_nothing_and_no_error() {
        let watch = GpuWatch::with_command(Command::new("no-such-program-here"), None);
        assert!(watch.is_over() && watch.latest().is_empty());
    }
}
