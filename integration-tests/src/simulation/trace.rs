//! What happened in a run: a hash of every step, and its words if somebody wants to read them.

/// How long a printed step may be.
const WORDS: usize = 400;

/// The record of one run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    print: bool,
}

impl Trace {
    pub fn new(print: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, print }
    }

    /// Notes one step. `words` are made only if they are printed; `numbers` must tell two different steps apart.
    pub fn note(&mut self, now_ns: u64, name: &str, numbers: &[u64], words: impl FnOnce() -> String) {
        self.mix(now_ns);
        name.bytes().for_each(|byte| self.mix(byte.into()));
        numbers.iter().for_each(|number| self.mix(*number));
        if self.print {
            let mut words = words();
            if words.len() > WORDS {
                words = words.chars().take(WORDS).chain(" …".chars()).collect();
            }
            println!("{:>12.3} ms  {name:<16} {words}", now_ns as f64 / 1e6);
        }
    }

    /// Equal for two runs exactly if they took the same steps (FNV-1a over words).
    pub fn hash(&self) -> u64 {
        self.hash
    }

    fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    }
}
