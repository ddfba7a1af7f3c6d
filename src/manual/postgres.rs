//! PostgreSQL: many brokers, one history.
//!
//! One machine runs on SQLite. Who outgrows it gives any number of brokers one PostgreSQL (15 or later) and any load
//! balancer; nothing else coordinates them. Each of them, and the database, may be killed at any time.
//!
//! ## Setting it up
//!
//! Three roles, made by whoever runs the server. The owner makes the schema and upgrades it, and is used for nothing else;
//! the writer is what brokers and commands log in as; a reader may look at the ledger and at nothing else.
//!
//! ```sql
//! CREATE ROLE hallpass_owner LOGIN PASSWORD '…';
//! CREATE ROLE hallpass LOGIN PASSWORD '…';
//! CREATE ROLE hallpass_reader LOGIN PASSWORD '…';
//! CREATE DATABASE hallpass OWNER hallpass_owner;
//! ```
//!
//! `hallpass.yaml` names the writer (`hallpass init --store URL --password-file FILE` writes it so):
//!
//! ```yaml
//! store: { url: "postgres://hallpass@db.example.com/hallpass?sslrootcert=ca.pem", password_file: store.password }
//! ```
//!
//! Then, once, as the owner:
//!
//! ```text
//! hallpass store init --as 'postgres://hallpass_owner@db.example.com/hallpass?sslrootcert=ca.pem' \
//!     --password-file owner.password --reader hallpass_reader
//! ```
//!
//! It makes the schema `hallpass` with an empty, signed ledger under the origin of `ledger.origin`, and gives writer and
//! reader their privileges. It overwrites nothing. `store migrate` brings a schema up to a later version's while brokers of
//! the one before go on; `store grant` repeats the privileges, for a role that came later. A broker never does any of it,
//! and without a schema it does not start. Every broker has the same `hallpass.yaml`, sealing key and policies, and a
//! `ledger.seen` of its own.
//!
//! ## The URL
//!
//! | part | means |
//! |---|---|
//! | `sslmode` | `verify-full`, the default and the only mode over a network; `disable` is for loopback and Unix sockets, and the default there |
//! | `sslrootcert` | a file of authorities. Without it, those of the public web count; with it, they count too |
//! | `sslcert`, `sslkey` | this client's certificate and its key |
//! | `host`, `port`, `user` | for a Unix socket: `postgres:///hallpass?host=/run/postgresql&user=hallpass` |
//!
//! Any other parameter is refused. A password in the URL is refused, since URLs are shown; it comes from
//! `store.password_file`, else from `PGPASSWORD`, else from the file that `PGPASSFILE` names. A pooler between broker and
//! server must pool sessions, not transactions.
//!
//! ## What the roles may do
//!
//! | role | may |
//! |---|---|
//! | owner | everything; triggers still refuse its UPDATE, DELETE and TRUNCATE of entries until it takes them away |
//! | writer | append entries, change the head, write issuances, claims and sealed secrets, put another ledger key in the place of the one before and wrap keys anew; it can change or delete no entry, let go of neither the ledger's key nor that of pseudonyms, and say nothing else about the database |
//! | reader | read entries, personal values, hashes and the head: what `ledger verify` needs. No key, no secret, no issuance |
//!
//! ## What holds
//!
//! - A batch is one transaction: it locks the head's row, decides claims and limits, writes rows, entries and one signed head,
//!   and changes the head by compare-and-swap. Whichever broker a request meets, a token is used once, a retry finds its
//!   first call, and a limit counts all.
//! - A broker remembers the largest head that it saw. Where the database shows another one, at each batch and after each
//!   new connection, it proves that one to contain the other. A standby that lagged or a restored backup fails that, is
//!   logged as `ALERT_ROLLBACK`, and nothing is issued until the right database is back.
//! - What one broker changes is seen by the others in their next batch, and within a second where they have none: secrets,
//!   tokens that had their last denial.
//!   The alert counts in `hallpass_alerts_total` at once, and is an entry of the right database as soon as that is back: the
//!   other one is another history, and nothing is appended to it while it is served. A broker that starts on it refuses to.
//! - A database that is gone, hangs or refuses is 503 `ledger_unavailable` within a second, and service comes back by itself.
//!   So it is where the machine's clock is more than 5 s off the server's: `/readyz` says so.
//! - Who holds the head's lock without a word for 0.7 s is cut off by the server, so that a broker that was paused stops
//!   nobody; when it wakes its transaction is gone.
//! - `synchronous_commit` is on for every broker's session, whatever the server's default. With a synchronous standby
//!   (`synchronous_standby_names`), a failover loses nothing; without one, a failover may lose the newest entries, and then
//!   every broker refuses the standby.
//!
//! ## Keys
//!
//! `keys list`, `keys rotate ledger`, `keys rotate assertions` and `keys rewrap` work while any number of brokers serve; they
//! log in as the writer and read the same configuration.
//!
//! - **The ledger's key.** One transaction under the head's lock keeps the new key, records `KEY_ROTATED` with both keys'
//!   signatures, signs the head by both, and names the new key in the head's row. Each broker finds it there when it takes
//!   the lock for its next batch, and signs with it; one that was paused, or cannot open it, writes nothing: a head without
//!   the signature of the key that its row names breaks a constraint of the table, whoever writes it.
//! - **The sealing key.** Name both keys (`sealing_key: { file: …, previous: { file: … } }`) for every broker and send each
//!   SIGHUP; a broker says in the database which keys it knows. `keys rewrap` wraps sixteen records in a transaction, and says
//!   with the last one, in its entry, that the new key is the store's. It is refused as long as a broker that was heard of
//!   within 30 s does not know the new key. Stopped in the middle, it leaves records under two keys: brokers go on, nobody
//!   starts who knows one of the keys only, and running it again goes on with it. With the two names exchanged it goes back.
//!   Afterwards name only the new key, and send each broker SIGHUP. A broker that slept through all of it answers 502 for
//!   sealed secrets until it hears SIGHUP.
//!
//! ## Another version
//!
//! Upgrade the schema first, then the brokers one after the other: `store migrate` only adds (tables, columns that may stay
//! empty), so that brokers of the version before go on beside the new ones. It waits for no table longer than 0.3 s at a time,
//! since every batch would wait behind it: where a backup reads for longer, it says so, and is run again afterwards. What a migration adds for keys holds the older
//! brokers too: once the ledger's key was changed, none of them can append any more, since they sign with the old one; end
//! them before that. `keys rewrap` waits for them, since they do not say which keys they know. A broker
//! takes a later schema than its own as it is, unless that says `schema_least`: then something was taken away that it
//! needs, and it does not start. `store migrate` and `store grant` of an earlier version are refused on a later schema.
//!
//! ## Copies
//!
//! `hallpass backup --out DIR` reads everything in one repeatable-read transaction, as the brokers' role, while they write.
//! The copy is a database file of SQLite's with a manifest, the same as on one machine: `restore --verify` looks through it
//! without a server. `restore --from DIR --as URL` makes the schema as its owner and fills it, in one transaction, and
//! only where there is none. Which replicas live and which one publishes is not copied. Copies by the server's own tools
//! work as well; whatever way an older state comes back, brokers refuse it until `restore --accept-loss`.
//!
//! ## Known limits
//!
//! - Thirty entries a minute for refusals of one project are each broker's own.
//! - Where a commit's answer is lost, the caller hears 503 although it may have been durable. With an idempotency key the
//!   call can be repeated.
