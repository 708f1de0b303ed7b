//! Messages into frames and back: batching, and fragments of what is too large for a frame.

use prost::Message;

use crate::proto::{ExecutorMessage, Fragment, WorkerFrame, WorkerMessage, executor_message, worker_message};

const LEAST_FRAME_BYTES: usize = 1 << 10;
/// What frame, message and fragment add to a piece, at the most.
const FRAGMENT_OVERHEAD: usize = 64;
/// The most that fragments are joined to.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// Makes the frames that a stream sends.
#[derive(Default)]
pub struct Framer {
    fragments: u64,
}

impl Framer {
    /// Gives frames that hold the messages in their order, as few as possible. A message that is too large for a frame
    /// becomes fragments, each in a frame of its own. `limit` is that of a frame in bytes, 0 for none.
    pub fn frames(&mut self, messages: Vec<WorkerMessage>, limit: usize) -> Vec<WorkerFrame> {
        let limit = if limit == 0 { usize::MAX } else { limit.max(LEAST_FRAME_BYTES) };
        let mut frames = vec![WorkerFrame::default()];
        let mut size = 0;
        for message in messages {
            let length = message.encoded_len();
            // In a frame a message is preceded by its tag, one byte, and its length.
            let whole = 1 + prost::length_delimiter_len(length) + length;
            if size + whole > limit {
                size = 0;
                if whole > limit {
                    frames.extend(self.cut(&message, limit - FRAGMENT_OVERHEAD));
                    frames.push(WorkerFrame::default());
                    continue;
                }
                frames.push(WorkerFrame::default());
            }
            size += whole;
            frames.last_mut().expect("there is always one").messages.push(message);
        }
        frames.retain(|frame| !frame.messages.is_empty());
        frames
    }

    fn cut(&mut self, message: &WorkerMessage, piece: usize) -> Vec<WorkerFrame> {
        self.fragments += 1;
        let data = message.encode_to_vec();
        let count = data.len().div_ceil(piece);
        let pieces = data.chunks(piece).enumerate().map(|(at, data)| Fragment {
            id: self.fragments,
            data: data.to_vec(),
            last: at + 1 == count,
        });
        pieces.map(|fragment| frame(worker_message::Kind::Fragment(fragment))).collect()
    }
}

fn frame(kind: worker_message::Kind) -> WorkerFrame {
    WorkerFrame { messages: vec![WorkerMessage { kind: Some(kind) }] }
}

/// Puts together the fragments that a stream receives.
#[derive(Default)]
pub struct Joiner {
    /// Of the last fragment.
    id: u64,
    open: bool,
    data: Vec<u8>,
}

impl Joiner {
    /// Takes a message, and gives what it is or completes, if it does.
    pub fn add(&mut self, message: ExecutorMessage) -> Result<Option<executor_message::Kind>, String> {
        let Some(executor_message::Kind::Fragment(fragment)) = message.kind else {
            return Ok(message.kind);
        };
        let id = fragment.id;
        if self.open && id != self.id {
            return Err(format!("fragment {id} came before the last one of {}", self.id));
        }
        if !self.open && id <= self.id {
            return Err(format!("fragment {id} came after the last one of {}: ids must grow", self.id));
        }
        if self.data.len() + fragment.data.len() > MAX_MESSAGE_BYTES {
            return Err(format!("the fragments {id} have more than {MAX_MESSAGE_BYTES} bytes, the most that is taken"));
        }
        self.id = id;
        self.open = !fragment.last;
        self.data.extend(fragment.data);
        if self.open {
            return Ok(None);
        }
        let data = std::mem::take(&mut self.data);
        match ExecutorMessage::decode(data.as_slice()) {
            Err(error) => Err(format!("the fragments {id} can't be read: {error}")),
            Ok(ExecutorMessage { kind: Some(executor_message::Kind::Fragment(_)) }) => {
                Err(format!("the fragments {id} hold another fragment"))
            }
            Ok(whole) => Ok(whole.kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{GoAway, StepRun};

    fn report(bytes: usize) -> WorkerMessage {
        let output = crate::proto::Payload { data: vec![7; bytes], ..Default::default() };
        let done = StepRun { output: Some(output), ..Default::default() };
        WorkerMessage { kind: Some(worker_message::Kind::StepRun(done)) }
    }

    #[test]
    fn messages_share_frames_up_to_the_limit() {
        let frames = Framer::default().frames((0..10).map(|_| report(300)).collect(), 1024);
        assert_eq!(frames.iter().map(|frame| frame.messages.len()).collect::<Vec<_>>(), [3, 3, 3, 1]);
        assert!(frames.iter().all(|frame| frame.encoded_len() <= 1024));
    }

    #[test]
    fn a_large_message_is_cut_and_keeps_its_place() {
        let mut framer = Framer::default();
        let frames = framer.frames(vec![report(1), report(5000), report(2)], 1024);
        assert!(frames.iter().all(|frame| frame.encoded_len() <= 1024));
        let fragments = frames.len() - 2;
        assert!(fragments >= 5);
        let mut joined = Vec::new();
        for frame in &frames[1..=fragments] {
            let Some(worker_message::Kind::Fragment(fragment)) = &frame.messages[0].kind else { panic!("no fragment") };
            assert_eq!(fragment.id, 1);
            assert_eq!(fragment.last, std::ptr::eq(frame, &frames[fragments]));
            joined.extend(&fragment.data);
        }
        assert_eq!(WorkerMessage::decode(joined.as_slice()).unwrap(), report(5000));
    }

    fn fragment(id: u64, data: &[u8], last: bool) -> ExecutorMessage {
        let kind = executor_message::Kind::Fragment(Fragment { id, data: data.to_vec(), last });
        ExecutorMessage { kind: Some(kind) }
    }

    #[test]
    fn fragments_are_joined_in_their_order() {
        let whole = ExecutorMessage {
            kind: Some(executor_message::Kind::GoAway(GoAway { reason: "a restart".into(), ..Default::default() })),
        };
        let data = whole.encode_to_vec();
        let mut joiner = Joiner::default();
        assert_eq!(joiner.add(fragment(4, &data[..3], false)), Ok(None));
        assert_eq!(joiner.add(fragment(4, &data[3..], true)), Ok(whole.kind));
    }

    #[test]
    fn fragments_out_of_order_are_refused() {
        let mut joiner = Joiner::default();
        joiner.add(fragment(4, b"x", false)).unwrap();
        assert!(joiner.add(fragment(5, b"y", true)).unwrap_err().contains("before the last one of 4"));
        let mut joiner = Joiner::default();
        joiner.add(fragment(4, b"", true)).unwrap();
        assert!(joiner.add(fragment(4, b"", true)).unwrap_err().contains("ids must grow"));
    }
}
