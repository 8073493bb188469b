//! The look back of a live run: a thread reads the recording and plays it. A file system may hang, and a busy
//! minute takes long to play, so neither the loop nor the books wait for it.

use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::{iter, thread};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::ScreenOptions;
use super::timeline::{Reached, Step, Timeline};
use handshake_record::Reel;

/// Segments that are kept open: as many as the folder has, unless it is written anew.
const SEGMENTS: usize = 64;

/// What the thread is told.
enum Told {
    /// The next segment of the recording.
    Segment(File),
    /// To go to another moment, or to play the same again; with the number of the question.
    Travel(Option<Step>, u64),
}

/// What is seen.
pub(crate) enum Seen {
    /// The present.
    Present,
    /// A moment; `None` where it cannot be played.
    Past(io::Result<Option<Box<Reached>>>),
}

/// The thread's other end.
pub(crate) struct LookBack {
    tell: Sender<Told>,
    seen: UnboundedReceiver<(Seen, u64)>,
    /// Questions so far, and the one that is answered next at the earliest.
    asked: u64,
    awaited: u64,
}

impl LookBack {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The system's: there is no room for a thread.
    pub(crate) fn start(options: ScreenOptions) -> io::Result<Self> {
        let (tell, told) = channel();
        let (show, seen) = unbounded_channel();
        thread::Builder::new().name("look back".to_owned()).spawn(move || look(&told, &show, &options))?;
        Ok(Self { tell, seen, asked: 0, awaited: 0 })
    }

    /// What is to be called with each segment of the recording that begins.
    pub(crate) fn follows(&self) -> impl Fn(File) + 'static {
        let tell = self.tell.clone();
        // Where the thread has ended, so has the terminal.
        move |segment| drop(tell.send(Told::Segment(segment)))
    }

    /// Asks for another moment, or for the same again.
    pub(crate) fn ask(&mut self, step: Option<Step>) {
        self.asked += 1;
        let _ = self.tell.send(Told::Travel(step, self.asked));
    }

    /// Leaves the past at once, whatever has been asked for.
    pub(crate) fn leave(&mut self) {
        self.ask(Some(Step::End));
        self.awaited = self.asked;
    }

    /// What is seen next.
    pub(crate) async fn next(&mut self) -> Option<Seen> {
        loop {
            let (seen, question) = self.seen.recv().await?;
            if question >= self.awaited {
                return Some(seen);
            }
        }
    }
}

/// Follows the recording, and answers the latest of the questions that have come meanwhile.
fn look(told: &Receiver<Told>, show: &UnboundedSender<(Seen, u64)>, options: &ScreenOptions) {
    let (mut reel, mut timeline) = (Reel::default(), Timeline::default());
    while let Ok(first) = told.recv() {
        let mut question = None;
        for told in iter::once(first).chain(told.try_iter()) {
            // What cannot be read is not there for a look back.
            let _ = reel.follow();
            match told {
                Told::Segment(segment) => {
                    let _ = reel.add(segment);
                    reel.keep(SEGMENTS);
                }
                Told::Travel(step, number) => {
                    step.into_iter().for_each(|step| timeline.go(step, &reel, true));
                    question = Some(number);
                }
            }
        }
        let Some(question) = question else { continue };
        let seen = timeline.shown().map_or(Seen::Present, |number| {
            Seen::Past(Reached::at(number, &reel, options).map(|reached| reached.map(Box::new)))
        });
        if show.send((seen, question)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LookBack, Seen, Step};
    use crate::tui::timeline::tests::OPTIONS;

    /// The present is there at once: what was asked for before is not shown after it.
    #[tokio::test]
    async fn what_was_asked_for_before_is_not_shown_in_the_present() {
        let mut look_back = LookBack::start(OPTIONS).expect("there is room");
        let (show, seen) = tokio::sync::mpsc::unbounded_channel();
        look_back.seen = seen;
        look_back.ask(Some(Step::Back(1)));
        look_back.leave();
        look_back.ask(Some(Step::Back(2)));
        for (question, error) in [(1, "the first"), (3, "the third")] {
            let seen = Seen::Past(Err(std::io::Error::other(error)));
            show.send((seen, question)).expect("it is read");
        }
        match look_back.next().await {
            Some(Seen::Past(Err(error))) => assert_eq!(error.to_string(), "the third"),
            _ => panic!("the third was asked for"),
        }
    }
}
