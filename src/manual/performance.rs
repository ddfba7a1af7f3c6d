//! # Where an exchange's time goes
//!
//! A profile of `hallpass serve` under `cargo bench --bench exchange`: 32 connections over plain HTTP/1.1 on loopback, one
//! sealed credential for each RS256 token of 1.9 kB, SQLite. Taken on 2026-11-28 on a virtual machine with 2 vCPU (AMD EPYC)
//! that load and broker share, by `perf record` on a release build without LTO. Shares are of the broker's CPU time, both
//! threads' kernel time included; a share moves by a tenth of itself from run to run.
//!
//! | part | share | of it |
//! |---|---:|---|
//! | HTTP: reading the request, routing, layers, timers, tasks, sending | 37 % | sending 6 %, the log line 1.5 % |
//! | who is it: token split and read, signature, identity, what entries say of it | 14 % | strict JSON 3.6 %, RSA 1.9 %, subject 3.5 % |
//! | the exchange: decision, fetch, INTENT and ISSUED sealed, handed to the writer, receipts | 16 % | sealing entries 8 %, opening the secret 1.6 %, the decision 0.7 % |
//! | the answer, with its receipts, and its wiping | 4 % | |
//! | the writer: one transaction a batch | 29 % | fsync 7 %, frames into the log 6 %, log into the database 5 %, entries, tree and signature 5 %, claims and rows 4 % |
//!
//! An exchange takes 375 allocations (62 of them the token's claims, 100 the two entries) and, at 32 connections, 13 writes
//! of a page or its header and an eighth of an fsync: about eight exchanges share one. Nothing is read from the database
//! but the once-claim's place in its index.
//!
//! ## What it showed to be waste, and is gone
//!
//! - The token's claims were cloned, sorted and written anew for INTENT, for ISSUED and for an UNDELIVERED that is hardly
//!   ever needed, and entries were parsed again for the columns that queries use: a fifth of everything. Now a subject is
//!   written once a token ([`Subject`](crate::kernel::ledger::subject::Subject)), with gaps for the commitments.
//! - Secrets were wiped byte by byte (3 %), base 32 written bit by bit (1 %), receipts encoded twice (1.5 %).
//! - Together: 781 to 552 µs of CPU an exchange, in runs one after the other on a busy machine, and 0.118 to 0.157 of the
//!   bare route. On the same machine with other work held, and with LTO: 340 µs, and 0.164.
//!
//! ## What is left
//!
//! - Entries of this size (2.2 kB) fill a page of 4 KiB each, so an exchange writes two, and a third for its once-claim,
//!   whose key is random: it is no function of the token's times, so that two tokens with one `jti` are one token.
//! - Each request passes two tasks and the writer's thread, so that it ends whether or not its client waits: three wakes.
//! - The strict reader makes a tree of all claims. Borrowed claims would save most of its allocations.
