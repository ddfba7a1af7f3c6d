//! Latencies by situation, drawn in rounds: each situation once a round and in another order each time, so that
//! whatever the machine does meanwhile falls on all alike.
//!
//! How much they may differ by chance is measured and not assumed: the same draws with their labels shuffled within
//! each round show spreads that mean nothing, and what hardly one of those passes is the noise floor.

use std::{
    fmt,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use crate::support::PATIENCE;

/// Latencies: a row for each round, a column for each situation.
pub(crate) struct Draws {
    names: Vec<&'static str>,
    rounds: Vec<Vec<Duration>>,
}

/// One client that knows how to ask quickly.
struct Asker {
    address: SocketAddr,
    kept: Option<(TcpStream, Instant)>,
}

impl Draws {
    /// Draws so many rounds of these questions. Each is asked with a token of its own, made before the clock starts,
    /// and must be answered with the status beside it.
    pub(crate) fn draw(
        address: SocketAddr,
        asks: &[(&'static str, &str, u16)],
        rounds: usize,
        mint: impl Fn() -> String,
    ) -> Self {
        let mut asker = Asker { address, kept: None };
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let names = asks.iter().map(|(name, ..)| *name).collect();
        let mut draw_round = || {
            let mut row = vec![Duration::ZERO; asks.len()];
            for at in random.order(asks.len()) {
                let (name, body, status) = asks[at];
                let (answered, took) = asker.ask(&mint(), body);
                assert_eq!(answered, status, "{name}");
                row[at] = took;
            }
            row
        };
        let rounds = (0..rounds).map(|_| draw_round()).collect();
        Self { names, rounds }
    }

    /// The median of each situation.
    pub(crate) fn medians(&self) -> Vec<(&'static str, Duration)> {
        let column = |at: usize| self.rounds.iter().map(|row| row[at]).collect();
        self.names.iter().enumerate().map(|(at, name)| (*name, median(column(at)))).collect()
    }

    /// The same draws without one situation.
    pub(crate) fn without(&self, name: &str) -> Self {
        let keep = |at: usize| self.names[at] != name;
        let row = |row: &Vec<Duration>| {
            row.iter().enumerate().filter(|(at, _)| keep(*at)).map(|(_, took)| *took).collect()
        };
        let names = self.names.iter().copied().filter(|each| *each != name).collect();
        Self { names, rounds: self.rounds.iter().map(row).collect() }
    }

    /// Between the slowest median and the quickest.
    pub(crate) fn spread(&self) -> Duration {
        let medians = self.medians();
        let (least, most) =
            (medians.iter().map(|(_, each)| each).min(), medians.iter().map(|(_, each)| each).max());
        *most.unwrap() - *least.unwrap()
    }

    /// The spread that one in a hundred shuffles of the labels passes.
    pub(crate) fn noise_floor(&self) -> Duration {
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        let mut spread = || {
            let mix = |row: &Vec<Duration>| random.order(row.len()).into_iter().map(|at| row[at]).collect();
            Self { names: self.names.clone(), rounds: self.rounds.iter().map(mix).collect() }.spread()
        };
        let mut spreads: Vec<Duration> = (0..SHUFFLES).map(|_| spread()).collect();
        spreads.sort_unstable();
        spreads[SHUFFLES * 99 / 100]
    }

    /// The median of all draws.
    pub(crate) fn middle(&self) -> Duration {
        median(self.rounds.concat())
    }
}

impl fmt::Display for Draws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let medians = self.medians();
        let first = medians[0].1.as_secs_f64();
        for (name, median) in medians {
            let more = (median.as_secs_f64() / first - 1.0) * 100.0;
            writeln!(f, "{name:<22} {:>9.1?}  {more:>+6.2} %", median)?;
        }
        Ok(())
    }
}

impl Asker {
    /// Asks on an open connection; answers the status, and the time from the request's first byte to the answer's last.
    fn ask(&mut self, token: &str, body: &str) -> (u16, Duration) {
        let length = body.len();
        let request = format!(
            "POST /v1/exchange HTTP/1.1\r\nhost: hallpass.test\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        let (mut stream, since) = self.connection();
        let start = Instant::now();
        let status = exchange(&mut stream, &request);
        let took = start.elapsed();
        self.kept = Some((stream, since));
        (status, took)
    }

    /// A connection that the broker will not end while it is asked on: it ends each half a second after its first
    /// token. Each has answered something, so that its own beginning is not measured.
    fn connection(&mut self) -> (TcpStream, Instant) {
        let kept = self.kept.take().filter(|(_, since)| since.elapsed() < Duration::from_millis(200));
        kept.unwrap_or_else(|| {
            let mut stream = TcpStream::connect(self.address).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            assert_eq!(exchange(&mut stream, "GET /livez HTTP/1.1\r\nhost: hallpass.test\r\n\r\n"), 200);
            (stream, Instant::now())
        })
    }
}

/// Sends a request and reads its answer whole; answers the status.
fn exchange(stream: &mut TcpStream, request: &str) -> u16 {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = [0; 16 * 1024];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut answer[filled..]).unwrap();
        assert_ne!(read, 0, "the connection ended within an answer");
        filled += read;
        let text = std::str::from_utf8(&answer[..filled]).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() == length.unwrap_or(0) {
            return head[9..12].parse().unwrap();
        }
    }
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

/// Enough for a quantile of 99 %.
const SHUFFLES: usize = 500;

/// Numbers that only have to be well mixed, and the same in every run (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap() % end
    }

    /// The numbers below `end` in some order.
    fn order(&mut self, end: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..end).collect();
        for at in (1..end).rev() {
            order.swap(at, self.below(at + 1));
        }
        order
    }
}
