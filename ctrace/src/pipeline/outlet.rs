//! Where events leave for the writer. What does not fit is counted, and said where the gap is.

use ctrace_common::Ring;
use tokio::sync::mpsc::Sender;

use super::about_ctrace;
use crate::event::{Event, Lost, Payload};

/// Events that wait for the writer.
pub const CHANNEL: usize = 4096;
/// Room that high rates leave to what is rare.
const RESERVED: usize = CHANNEL / 4;
/// Room of it that denials leave: a process makes as many as it likes.
const RESERVED_OF_IT: usize = CHANNEL / 8;

/// What may take which room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// Of a high rate.
    Common,
    /// Rare, but where somebody wants it to be frequent.
    Rare,
    /// Rare, such as OOM kills.
    Precious,
}

impl Worth {
    pub fn of(ring: Ring, payload: &Payload) -> Self {
        match (ring, payload) {
            (Ring::Bulk, _) => Self::Common,
            (_, Payload::Seccomp(seccomp)) if !seccomp.action.is_kill() => Self::Rare,
            _ => Self::Precious,
        }
    }
}

pub struct Outlet {
    sender: Sender<Event>,
    /// Events that there was no room for, not yet reported.
    unsent: u64,
    /// All that there was no room for, those not yet reported left out.
    lost: u64,
}

impl Outlet {
    /// To a channel of [`CHANNEL`].
    pub fn new(sender: Sender<Event>) -> Self {
        Self { sender, unsent: 0, lost: 0 }
    }

    /// Hands an event to the writer, or counts it.
    pub fn send(&mut self, event: Event, worth: Worth) {
        let reserved = match (worth, self.unsent) {
            (Worth::Common, 0) => RESERVED,
            // One long gap, not one after each event that fits.
            (Worth::Common, _) => CHANNEL / 2,
            (Worth::Rare, _) => RESERVED_OF_IT,
            (Worth::Precious, _) => 0,
        };
        if self.sender.capacity() <= reserved {
            self.unsent += 1;
            return;
        }
        self.flush();
        if self.unsent > 0 || self.sender.try_send(event).is_err() {
            self.unsent += 1;
        }
    }

    /// Reports the events that did not fit, where the gap is.
    pub fn flush(&mut self) {
        if self.unsent == 0 || self.sender.is_closed() {
            return;
        }
        let lost = Lost { ring: "output", kind: "event", count: self.unsent };
        if self.sender.try_send(about_ctrace(lost)).is_ok() {
            self.lost += std::mem::take(&mut self.unsent);
        }
    }

    /// How many did not fit in all, but for the last ones if nobody wants to read more.
    pub fn lost(&self) -> u64 {
        if self.sender.is_closed() { self.lost } else { self.lost + self.unsent }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::event::Exit;

    fn event() -> Event {
        Event { time_ns: 0, subject: None, payload: Payload::Exit(Exit::default()) }
    }

    /// How many events come, and the gaps between them.
    fn read(receiver: &mut Receiver<Event>) -> (u64, Vec<u64>) {
        let (mut events, mut gaps) = (0, Vec::new());
        while let Ok(event) = receiver.try_recv() {
            match event.payload {
                Payload::Lost(lost) => gaps.push(lost.count),
                _ => events += 1,
            }
        }
        (events, gaps)
    }

    #[test]
    fn a_flood_leaves_room_for_what_is_rare() {
        let (sender, mut receiver) = channel(CHANNEL);
        let mut outlet = Outlet::new(sender);
        (0..2 * CHANNEL).for_each(|_| outlet.send(event(), Worth::Common));
        let left_out = (CHANNEL + RESERVED) as u64;
        assert_eq!(outlet.lost(), left_out);
        // One place is the gap's.
        (1..RESERVED).for_each(|_| outlet.send(event(), Worth::Precious));
        assert_eq!((outlet.lost(), receiver.len()), (left_out, CHANNEL));
        outlet.send(event(), Worth::Precious);
        assert_eq!(outlet.lost(), left_out + 1);
        assert_eq!(read(&mut receiver), (CHANNEL as u64 - 1, vec![left_out]));
        outlet.flush();
        outlet.send(event(), Worth::Common);
        assert_eq!(read(&mut receiver), (1, vec![1]));
    }

    #[test]
    fn a_flood_of_denials_leaves_room_for_oom_kills() {
        let (sender, receiver) = channel(CHANNEL);
        let mut outlet = Outlet::new(sender);
        (0..2 * CHANNEL).for_each(|_| outlet.send(event(), Worth::Rare));
        assert_eq!(receiver.len(), CHANNEL - RESERVED_OF_IT);
    }

    #[test]
    fn a_slow_reader_sees_few_gaps() {
        let (sender, mut receiver) = channel(CHANNEL);
        let mut outlet = Outlet::new(sender);
        let (mut events, mut gaps) = (0, 0);
        for _ in 0..4 * CHANNEL {
            (0..2).for_each(|_| outlet.send(event(), Worth::Common));
            match receiver.try_recv().map(|event| event.payload) {
                Ok(Payload::Lost(_)) => gaps += 1,
                _ => events += 1,
            }
        }
        assert!(gaps < 20, "{gaps} gaps in {events} events");
        let (more, _) = read(&mut receiver);
        assert_eq!(events + more + outlet.lost(), 8 * CHANNEL as u64);
    }

    #[test]
    fn the_ring_says_what_is_rare() {
        let payload = event().payload;
        assert_eq!(Worth::of(Ring::Bulk, &payload), Worth::Common);
        assert_eq!(Worth::of(Ring::Rare, &payload), Worth::Precious);
    }

    #[test]
    fn nobody_reads() {
        let (sender, receiver) = channel(CHANNEL);
        let mut outlet = Outlet::new(sender);
        drop(receiver);
        outlet.send(event(), Worth::Precious);
        outlet.flush();
        assert_eq!(outlet.lost(), 0);
    }
}
