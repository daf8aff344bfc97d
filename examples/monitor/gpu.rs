//! The GPUs of this machine in words.

use slugline::gpu::GpuSample;

/// A line for a GPU. What it does not say is called unknown, never zero.
pub(crate) fn line(sample: &GpuSample) -> String {
    let percent =
        |share: Option<f64>| share.map_or_else(|| "unknown".to_owned(), |share| format!("{:.0} %", 100.0 * share));
    let memory = match (sample.memory_used_mib, sample.memory_total_mib) {
        (Some(used), Some(total)) => format!("{used:.0} of {total:.0} MiB = {}", percent(sample.memory_share())),
        (Some(used), None) => format!("{used:.0} MiB"),
        _ => "unknown".to_owned(),
    };
    format!("GPU {}: busy {}, memory {memory}", sample.index, percent(sample.utilization))
}

#[cfg(test)]
mod tests {
    use slugline::gpu::GpuColumns;

    use super::*;

    #[test]
    fn what_is_not_said_is_unknown() {
        let columns = GpuColumns::parse("index, utilization.gpu [%], memory.used [MiB], memory.total [MiB]").unwrap();
        let said = |text: &str| line(&columns.sample(text).unwrap());
        assert_eq!(said("0, 97 %, 14336 MiB, 16384 MiB"), "GPU 0: busy 97 %, memory 14336 of 16384 MiB = 88 %");
        assert_eq!(said("1, [N/A], 10 MiB, [N/A]"), "GPU 1: busy unknown, memory 10 MiB");
    }
}
