//! The GPUs of this machine, by `nvidia-smi`.

use std::process::Stdio;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(3);
const QUERY: &str = "--query-gpu=index,name,utilization.gpu,memory.used,memory.total";

/// A line for each GPU; none where there is none, or no `nvidia-smi`.
pub(crate) async fn look() -> Vec<String> {
    let asked = tokio::task::spawn_blocking(|| {
        let mut command = std::process::Command::new("nvidia-smi");
        command.args([QUERY, "--format=csv,noheader,nounits"]).stdin(Stdio::null()).stderr(Stdio::null());
        command.output().ok().filter(|output| output.status.success())
    });
    match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(Ok(Some(output))) => lines(&String::from_utf8_lossy(&output.stdout)),
        _ => Vec::new(),
    }
}

fn lines(csv: &str) -> Vec<String> {
    csv.lines().filter_map(line).collect()
}

fn line(row: &str) -> Option<String> {
    let cells: Vec<&str> = row.split(',').map(str::trim).collect();
    let [index, name, utilization, used, total] = cells[..] else { return None };
    let (used_mib, total_mib) = (used.parse::<f64>().ok()?, total.parse::<f64>().ok().filter(|total| *total > 0.0)?);
    let share = 100.0 * used_mib / total_mib;
    // Some cards do not say how busy they are.
    let busy = utilization.parse::<f64>().map_or_else(|_| "unknown".to_owned(), |busy| format!("{busy:.0} %"));
    Some(format!("GPU {index} {name}: busy {busy}, memory {used_mib:.0} of {total_mib:.0} MiB ({share:.0} %)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nvidia_smi_says_is_read_and_anything_else_is_left_out() {
        let csv = "0, NVIDIA GeForce RTX 4080, 97, 14336, 16376\n1, Old, [N/A], 10, 100\nNo devices were found\n";
        assert_eq!(
            lines(csv),
            [
                "GPU 0 NVIDIA GeForce RTX 4080: busy 97 %, memory 14336 of 16376 MiB (88 %)",
                "GPU 1 Old: busy unknown, memory 10 of 100 MiB (10 %)"
            ]
        );
    }
}
