//! The machine: swap, which P5 cannot wipe, and whether a broker's memory can be kept out of it.

use super::{
    super::process::{LOCKABLE, LockLimit, areas_of, lockable},
    Look, Standing,
};

pub(super) fn look() -> Vec<Look> {
    let table = std::fs::read_to_string("/proc/swaps").ok();
    vec![swap(table.as_deref()), memory(lockable(), table.as_deref())]
}

/// Reads the kernel's table of swap areas.
fn swap(table: Option<&str>) -> Look {
    let advice = "turn it off, or encrypt it under a key that dies with the machine's power";
    let Some(table) = table else {
        return Look::warning("swap", "whether this machine swaps cannot be seen here", advice);
    };
    let areas = areas_of(table);
    if areas.is_empty() {
        return Look::fine("swap", "no swap on a disk");
    }
    let found =
        format!("this machine swaps to {}: what was wiped in memory may stay on that disk", areas.join(", "));
    Look::warning("swap", found, advice)
}

/// What holds for a broker that is started as this was.
fn memory(lockable: Result<(), LockLimit>, table: Option<&str>) -> Look {
    const PART: &str = "memory";
    match lockable {
        Ok(()) => Look::fine(PART, "may be locked"),
        Err(limit) if table.is_some_and(|table| areas_of(table).is_empty()) => Look {
            part: PART,
            standing: Standing::Fine,
            found: format!("is not locked, since {limit}; there is no swap it could go to"),
            advice: LOCKABLE.to_owned(),
        },
        Err(limit) => Look::warning(PART, format!("is not locked, since {limit}"), LOCKABLE),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Standing, memory, swap};

    const HEAD: &str = "Filename\tType\tSize\tUsed\tPriority\n";

    #[test]
    fn swap_on_a_disk_is_warned_of_and_compressed_memory_is_not() {
        let standing = |table: &str| swap(Some(table)).standing;
        assert_eq!(standing(HEAD), Standing::Fine);
        assert_eq!(standing(&format!("{HEAD}/dev/zram0 partition 100 0 5\n")), Standing::Fine);
        assert_eq!(
            standing(&format!("{HEAD}/dev/zram0 partition 1 0 5\n/swapfile file 1 0 -2\n")),
            Standing::Warning
        );
        assert_eq!(swap(None).standing, Standing::Warning);
    }

    #[test]
    fn memory_that_is_not_locked_is_warned_of_where_there_may_be_swap() {
        let limit = || Err(crate::cli::process::LockLimit::of_kilobytes(64));
        assert_eq!(memory(Ok(()), None).standing, Standing::Fine);
        assert_eq!(memory(limit(), Some(HEAD)).standing, Standing::Fine);
        let disk = format!("{HEAD}/swapfile file 1 0 -2\n");
        for table in [Some(disk.as_str()), None] {
            let look = memory(limit(), table);
            assert_eq!(look.standing, Standing::Warning);
            assert!(look.found.contains("64 kB") && look.advice.contains("LimitMEMLOCK"), "{look:?}");
        }
    }
}
