//! What `perf script` prints, line by line, as events. As in perf-script(1) with the fields [`FIELDS`].

use std::collections::HashMap;

/// The fields that are asked for.
pub const FIELDS: &str = "comm,tid,time,event,period,ip,sym,dso";

/// Where the kernel's half of the addresses begins, on every 64-bit processor.
const KERNEL_FROM: u64 = 1 << 63;

/// What perf writes below the last frame it could find.
const CUT: u64 = u64::MAX;

/// One function on a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its name; empty if there is none.
    pub symbol: String,
    /// Name of the file it is of, without folders.
    pub object: String,
    /// Whether it is the kernel's.
    pub kernel: bool,
}

/// A thread at a moment.
#[derive(Clone, Debug, PartialEq)]
pub struct At {
    /// Its name.
    pub thread: String,
    /// Its number.
    pub tid: u32,
    /// Seconds of the monotonic clock.
    pub time: f64,
}

/// Something that perf saw.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A stack, of an event that stands for `period` of its kind.
    Sample {
        /// Whose and when.
        at: At,
        /// What happened.
        event: String,
        /// Nanoseconds, cycles or switches.
        period: u64,
        /// Innermost first.
        frames: Vec<Frame>,
    },
    /// The thread left its processor.
    Out {
        /// Whose and when.
        at: At,
        /// It could have gone on.
        preempted: bool,
    },
    /// The thread got a processor.
    In(At),
    /// Events that perf had no room for.
    Lost(u64),
}

/// Makes events of lines.
#[derive(Debug, Default)]
pub struct Lines {
    names: HashMap<u32, String>,
    open: Option<Event>,
}

impl Lines {
    /// With names of threads that perf may not know, each a line with number and name.
    pub fn with_names(names: &str) -> Self {
        let named = names.lines().filter_map(|line| {
            let (tid, name) = line.split_once(' ')?;
            Some((tid.parse().ok()?, name.to_owned()))
        });
        Self { names: named.collect(), open: None }
    }

    /// Takes a line; the event that it ends or is, if any.
    pub fn take(&mut self, line: &str) -> Option<Event> {
        if line.trim().is_empty() {
            return self.end();
        }
        if line.starts_with(char::is_whitespace)
            && let Some(Event::Sample { frames, .. }) = &mut self.open
        {
            let found = frame(line).filter(|(address, _)| *address != CUT);
            frames.extend(found.map(|(_, frame)| frame));
            return None;
        }
        match self.head(line) {
            Some(sample @ Event::Sample { .. }) => self.open.replace(sample),
            other => other,
        }
    }

    /// The event that is still open at the end.
    pub fn end(&mut self) -> Option<Event> {
        self.open.take()
    }

    /// A line that begins an event. A thread's name may hold anything, so the time is looked for: the first word that
    /// is a number and a colon, after one that is a number.
    fn head(&self, line: &str) -> Option<Event> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (nth, tid, time) = (1..words.len()).find_map(|nth| {
            let time: f64 = words[nth].strip_suffix(':')?.parse().ok()?;
            Some((nth, words[nth - 1].parse().ok()?, time))
        })?;
        let known = self.names.get(&tid).cloned();
        let at = At { thread: known.unwrap_or_else(|| words[..nth - 1].join(" ")), tid, time };
        match words[nth + 1..] {
            ["PERF_RECORD_SWITCH", "IN", ..] => Some(Event::In(at)),
            ["PERF_RECORD_SWITCH", "OUT", ref rest @ ..] => {
                Some(Event::Out { at, preempted: rest.first() == Some(&"preempt") })
            }
            ["PERF_RECORD_LOST", "lost", count, ..] => Some(Event::Lost(count.parse().ok()?)),
            [period, event, ..] => Some(Event::Sample {
                at,
                event: event.trim_end_matches(':').to_owned(),
                period: period.parse().ok()?,
                frames: Vec::new(),
            }),
            _ => None,
        }
    }
}

fn frame(line: &str) -> Option<(u64, Frame)> {
    let (address, rest) = line.trim().split_once(' ')?;
    let address = u64::from_str_radix(address, 16).ok()?;
    let (symbol, object) = rest.rsplit_once(" (")?;
    let object = object.trim_end_matches(')');
    let object = object.rsplit('/').next().unwrap_or(object).to_owned();
    let symbol = if symbol == "[unknown]" { String::new() } else { symbol.to_owned() };
    Some((address, Frame { symbol, object, kernel: address >= KERNEL_FROM }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "\
ringmain-bench 17978   916.779079001:     2004008        cpu-clock: 
\tffffffff8161a815 __rmqueue_pcplist ([kernel.kallsyms])
\t          493d15 <a::B<K,V> as c::D (x)>::from_iter (/opt/a b/ringmain-bench)
\tffffffffffffffff [unknown] ([unknown])

a name 12 18031   916.780621000: PERF_RECORD_SWITCH OUT preempt
a name 12 18031   916.780660000: PERF_RECORD_SWITCH IN         
ringmain-0 18031   916.790000000: PERF_RECORD_LOST lost 12
ringmain-0 18031   917.000000000:          15 context-switches: 
\t          f8011 [unknown] (/usr/lib/libc.so.6)
";

    #[test]
    fn every_kind_of_line_is_understood() {
        let mut lines = Lines::with_names("17978 its own name\n1 init\n");
        let mut events: Vec<Event> = SCRIPT.lines().filter_map(|l| lines.take(l)).collect();
        events.extend(lines.end());
        let [Event::Sample { at, event, period, frames }, out, back, lost, last] = &events[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!(at.thread, "its own name");
        assert_eq!((at.tid, event.as_str(), *period), (17978, "cpu-clock", 2_004_008));
        assert!(frames[0].kernel && !frames[1].kernel && frames.len() == 2, "{frames:?}");
        assert_eq!(frames[1].symbol, "<a::B<K,V> as c::D (x)>::from_iter");
        assert_eq!(frames[1].object, "ringmain-bench");
        assert!(
            matches!(out, Event::Out { at, preempted: true } if at.thread == "a name 12"),
            "{out:?}"
        );
        assert!(matches!(back, Event::In(at) if (at.time - 916.780_66).abs() < 1e-9), "{back:?}");
        assert_eq!(*lost, Event::Lost(12));
        let Event::Sample { period: 15, frames, .. } = last else { panic!("{last:?}") };
        assert_eq!((frames[0].symbol.as_str(), frames[0].object.as_str()), ("", "libc.so.6"));
    }
}
