//! The machine: swap, which P5 cannot wipe.

use std::fs;

use super::Look;

pub(super) fn look() -> Vec<Look> {
    vec![swap(fs::read_to_string("/proc/swaps").ok().as_deref())]
}

/// Reads the kernel's table of swap areas, a line each below its head. Swap that lies in compressed memory (zram)
/// reaches no disk.
fn swap(table: Option<&str>) -> Look {
    let advice = "turn it off, or encrypt it under a key that dies with the machine's power";
    let Some(table) = table else {
        return Look::warning("swap", "whether this machine swaps cannot be seen here", advice);
    };
    let areas: Vec<&str> = table
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .filter(|area| !is_memory(area))
        .collect();
    if areas.is_empty() {
        return Look::fine("swap", "no swap on a disk");
    }
    let found =
        format!("this machine swaps to {}: what was wiped in memory may stay on that disk", areas.join(", "));
    Look::warning("swap", found, advice)
}

fn is_memory(area: &str) -> bool {
    area.starts_with("/dev/zram")
}

#[cfg(test)]
mod tests {
    use super::{super::Standing, swap};

    #[test]
    fn swap_on_a_disk_is_warned_of_and_compressed_memory_is_not() {
        const HEAD: &str = "Filename\tType\tSize\tUsed\tPriority\n";
        let standing = |table: &str| swap(Some(table)).standing;
        assert_eq!(standing(HEAD), Standing::Fine);
        assert_eq!(standing(&format!("{HEAD}/dev/zram0 partition 100 0 5\n")), Standing::Fine);
        assert_eq!(
            standing(&format!("{HEAD}/dev/zram0 partition 1 0 5\n/swapfile file 1 0 -2\n")),
            Standing::Warning
        );
        assert_eq!(swap(None).standing, Standing::Warning);
    }
}
