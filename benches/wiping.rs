//! What wiping costs: a block from the system's allocator and back, with and without the zeros on free, by size; its growth
//! to twice the size, which never happens in place when it must leave no copy behind; and a `Secret`, which wipes itself,
//! against a plain vector of the same bytes. Each block is written to before it is freed, as a user of it does. One thread,
//! the median of many rounds. It asserts nothing about speed.
//!
//! Run it with `cargo bench --bench wiping`.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it found")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    time::{Duration, Instant},
};

use hallpass::{cli::allocator::Wiping, kernel::secret::Secret};

const SIZES: [usize; 6] = [64, 256, 1_024, 4_096, 16_384, 65_536];
const ROUNDS: usize = 101;
/// How often in a round; the clock costs some 30 ns a look.
const TURNS: u32 = 2_000;

fn main() {
    // Cargo also builds and runs benchmarks as tests (`cargo test --benches`); nothing is measured there.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!("ns each              alloc and free            grow to twice                   secret");
    println!("   bytes     plain    wiped     more    plain    wiped     more    plain   Secret     more");
    for size in SIZES {
        let pairs = [
            [median(|| free(&System, size)), median(|| free(&Wiping, size))],
            [median(|| grow(&System, size)), median(|| grow(&Wiping, size))],
            [median(|| drop(black_box(filled(size)))), median(|| drop(black_box(Secret::new(filled(size)))))],
        ];
        let columns = pairs.map(|[plain, wiped]| format!("{plain:>9.1}{wiped:>9.1}{:>9.1}", wiped - plain));
        println!("{size:>8} {}", columns.concat());
    }
}

/// The median time of one turn, in nanoseconds.
fn median(mut turn: impl FnMut()) -> f64 {
    let mut rounds: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            (0..TURNS).for_each(|_| turn());
            start.elapsed()
        })
        .collect();
    rounds.sort_unstable();
    let middle = rounds.get(ROUNDS / 2).copied().unwrap_or_default();
    middle.as_nanos() as f64 / f64::from(TURNS)
}

fn filled(size: usize) -> Vec<u8> {
    vec![0x5a; size]
}

#[expect(unsafe_code, reason = "the allocators are called by hand")]
fn free(allocator: &impl GlobalAlloc, size: usize) {
    let Ok(layout) = Layout::from_size_align(size, 8) else { return };
    // SAFETY: the block is used within its size, and freed once under its own layout.
    unsafe {
        let block = allocator.alloc(layout);
        if !block.is_null() {
            block.write_bytes(0x5a, size);
            allocator.dealloc(black_box(block), layout);
        }
    }
}

#[expect(unsafe_code, reason = "the allocators are called by hand")]
fn grow(allocator: &impl GlobalAlloc, size: usize) {
    let (Ok(small), Ok(large)) = (Layout::from_size_align(size, 8), Layout::from_size_align(2 * size, 8))
    else {
        return;
    };
    // SAFETY: each block is used within its size; it is given up by `realloc`, or freed once under its last layout.
    unsafe {
        let block = allocator.alloc(small);
        if block.is_null() {
            return;
        }
        block.write_bytes(0x5a, size);
        let grown = allocator.realloc(black_box(block), small, 2 * size);
        if grown.is_null() {
            allocator.dealloc(block, small);
        } else {
            allocator.dealloc(black_box(grown), large);
        }
    }
}
