//! All that happens, in its order, as one digest: two runs of a seed are the same where their digests are.

use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock::Time;

/// A digest of 64 bits, quick to make: what is compared with it is two runs of one program, and nobody's malice. The
/// step is that of the hash maps of Firefox and rustc (FxHash).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    pub fn add_number(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    pub fn add(&mut self, bytes: &[u8]) {
        self.add_number(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.add_number(u64::from_le_bytes(*word)));
        rest.iter().for_each(|byte| self.add_number(u64::from(*byte)));
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The events of one run.
pub struct Trace {
    time: Arc<Time>,
    seen: Mutex<Seen>,
}

struct Seen {
    sum: Sum,
    events: u64,
    /// Where the events go as text too, to look for the first that differs.
    text: Option<BufWriter<File>>,
}

impl Trace {
    /// None yet. With `HAY_TRACE=FILE` in the environment they are written there too.
    pub fn new(time: Arc<Time>) -> Arc<Self> {
        let text = std::env::var_os("HAY_TRACE").map(|path| BufWriter::new(File::create(path).unwrap()));
        Arc::new(Self { time, seen: Mutex::new(Seen { sum: Sum::default(), events: 0, text }) })
    }

    /// Something happened now.
    pub fn note(&self, event: fmt::Arguments<'_>) {
        let line = event.to_string();
        self.add(line.as_bytes(), format_args!("{line}"));
    }

    /// Bytes arrived. The most frequent event: no text is made of it unless somebody wants to read it.
    pub fn arrived(&self, there: SocketAddr, here: SocketAddr, bytes: &[u8]) {
        let mut sum = Sum::default();
        sum.add(bytes);
        let mut ends = Sum::default();
        for address in [there, here] {
            match address.ip() {
                std::net::IpAddr::V4(ip) => ends.add_number(u64::from(ip.to_bits())),
                std::net::IpAddr::V6(ip) => ends.add(&ip.octets()),
            }
            ends.add_number(u64::from(address.port()));
        }
        let of = [sum.0.to_le_bytes(), ends.0.to_le_bytes()].concat();
        self.add(&of, format_args!("{there} to {here}: {} bytes {sum}", bytes.len()));
    }

    fn add(&self, event: &[u8], text: fmt::Arguments<'_>) {
        let now = self.time.now();
        let mut seen = self.seen.lock();
        seen.sum.add_number(now.as_micros() as u64);
        seen.sum.add(event);
        seen.events += 1;
        if let Some(file) = &mut seen.text {
            writeln!(file, "{:>9.3} {text}", now.as_secs_f64()).unwrap();
        }
    }

    /// The digest of all events so far, and how many there were.
    pub fn digest(&self) -> (Sum, u64) {
        let mut seen = self.seen.lock();
        if let Some(text) = &mut seen.text {
            text.flush().unwrap();
        }
        (seen.sum, seen.events)
    }
}
