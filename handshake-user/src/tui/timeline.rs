//! The screens at a moment of a recording: how they were then, made of the blocks by the same functions as live.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use handshake_agent::model::flow::{Flow, FlowId};
use handshake_agent::model::snapshot::Snapshot;
use handshake_agent::owner::OwnerBook;
use handshake_agent::recording::Recorded;

use super::ScreenOptions;
use super::collect::Collecting;
use super::filter::ListFilter;
use super::owners::Owners;
use super::recent::Recent;
use super::scene::{PastMoment, Scene, SceneBuilder};
use super::surroundings::Around;
use handshake_record::Reel;

/// Moments that are played before the one that is shown: for the minute of each service, the rates and the attempts
/// that ended last.
const BEFORE: usize = 120;

/// A step through time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// So many moments back.
    Back(usize),
    /// So many moments on.
    On(usize),
    /// To the last one, and live again where it is being recorded.
    End,
}

/// Which moment is shown; `None` while the present is.
#[derive(Default)]
pub(crate) struct Timeline(Option<usize>);

impl Timeline {
    /// At this moment.
    pub(crate) const fn at(number: usize) -> Self {
        Self(Some(number))
    }

    /// The moment that is shown, if it is not the present.
    pub(crate) const fn shown(&self) -> Option<usize> {
        self.0
    }

    /// Goes to another moment. `is_live`: the end is the present.
    pub(crate) fn go(&mut self, step: Step, reel: &Reel, is_live: bool) {
        let numbers = reel.numbers();
        let Some(last) = numbers.end.checked_sub(1).filter(|last| numbers.contains(last)) else { return };
        let number = self.0.unwrap_or(last).max(numbers.start);
        let end = (!is_live).then_some(last);
        self.0 = match step {
            Step::Back(by) => Some(number.saturating_sub(by).max(numbers.start)),
            Step::On(by) => self.0.map(|_| number + by).filter(|number| *number <= last).or(end),
            Step::End => end,
        };
    }
}

/// A moment, with what led up to it.
pub(crate) struct Reached {
    moment: Recorded,
    builder: SceneBuilder,
    /// What ended in each of the moments, with the owners that were known then.
    ended: Vec<(OwnerBook, Vec<Flow>)>,
    ago_ns: u64,
    gap_ns: u64,
}

impl Reached {
    /// Plays the recording up to a moment; `None` where that cannot be played.
    ///
    /// # Errors
    ///
    /// Those of reading the recording.
    pub(crate) fn at(number: usize, reel: &Reel, options: &ScreenOptions) -> io::Result<Option<Self>> {
        let nothing = || (SceneBuilder::within(options.zone, options.names), Vec::new());
        let ((mut builder, mut ended), mut run, mut reached) = (nothing(), None, None);
        let from = number.saturating_sub(BEFORE).max(reel.numbers().start);
        reel.play(from..=number, &mut |at, player| {
            let Some(mut moment) = player.moment() else { return };
            // A run counts from its own beginning.
            if run.replace(moment.context.began.ns) != Some(moment.context.began.ns) {
                (builder, ended) = nothing();
            }
            ended.push((moment.context.owners.clone(), player.ended()));
            if at == number {
                reached = Some(moment);
            } else if let Ok(snapshot) = moment.snapshot() {
                builder.pass(snapshot);
            }
        })?;
        let (ago_ns, gap_ns) = (reel.ago_ns(number), reel.gap_before(number).unwrap_or(0));
        Ok(reached.map(|moment| Self { moment, builder, ended, ago_ns, gap_ns }))
    }

    /// Its scene; `None` where it makes no sense.
    pub(crate) fn scene(self, filter: &ListFilter, wanted: Option<FlowId>) -> Option<Scene> {
        let Self { mut moment, mut builder, ended, ago_ns, gap_ns } = self;
        let mut recent = Recent::default();
        recent.filter_by(filter);
        for (book, flows) in ended {
            recent.name_by(&Rc::new(Owners::of_book(&book)));
            flows.into_iter().for_each(|flow| recent.push(flow));
        }
        let (context, inherited, left_out) =
            (Arc::clone(&moment.context), moment.inherited.clone(), moment.left_out);
        let owners = Owners::of_book(&context.owners);
        let mut collecting = Collecting::new(&mut moment, filter, &owners, wanted);
        let snapshot = Snapshot::again(&mut collecting, &context, &inherited).ok()?;
        let mut kept = collecting.kept();
        if filter.is_empty() {
            // How many of them passed a filter is not known.
            kept.open_found += left_out.open;
        }
        let mut scene = builder.advance(snapshot, kept, &recent, Vec::new(), Around::default());
        scene.past = Some(PastMoment { ago_ns, gap_ns, left_out });
        Some(scene)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use handshake_agent::fake::{BEGINNING, Fake, SECOND, record};
    use handshake_agent::model::context::{Beginning, LiveOrigin, Origin, RunContext};
    use handshake_agent::model::flow::Flow;
    use handshake_agent::options::Filter;
    use handshake_agent::owner::OwnerBook;
    use handshake_agent::recording::{Ends, Recorder};
    use handshake_common::abi::Counter;
    use handshake_common::record::State;
    use handshake_common::verdict::Verdict;
    use handshake_record::{Folder, Reel, encode};

    use super::{Reached, Step, Timeline};
    use crate::names::Names;
    use crate::time::Zone;
    use crate::tui::ScreenOptions;
    use crate::tui::filter::ListFilter;
    use crate::tui::scene::Scene;

    pub(crate) const OPTIONS: ScreenOptions = ScreenOptions {
        interval: std::time::Duration::ZERO,
        ascii: false,
        zone: Zone::Utc,
        names: Names::NONE,
        until: None,
    };

    /// Records a run that begins so many seconds later, and completes so many attempts in each of its seconds.
    fn record_run(folder: &mut Folder, later: u64, seconds: u64, each: u16) {
        let (mut fake, mut recorder) = (Fake::new(), Recorder::default());
        fake.service(1, "10.0.0.2:443");
        fake.later(later * SECOND);
        let Beginning { wall_ns, ns } = BEGINNING;
        let context = Arc::new(RunContext {
            origin: Origin::Live(LiveOrigin::default()),
            began: Beginning { wall_ns: wall_ns + later * SECOND, ns: ns + later * SECOND },
            filter: Filter::default(),
            top: usize::MAX,
            owners: OwnerBook::default(),
        });
        for _ in 0..seconds {
            fake.later(SECOND);
            fake.ended(1, Counter::Completed, i64::from(each));
            let mut ends = Ends::default();
            for port in 0..each {
                let one = record(&format!("10.0.0.1:{}", 1_000 + port), "10.0.0.2:443", State::Established);
                ends.push(Flow::ended(one, Verdict::Completed, fake.reading.now.ns));
            }
            let block = recorder.block(&mut fake, &context, &mut ends).expect("a fake never fails");
            folder.append(&encode(&block)).expect("there is room");
        }
    }

    fn scene(number: usize, reel: &Reel) -> Scene {
        let reached = Reached::at(number, reel, &OPTIONS).expect("it can be read").expect("it can be played");
        reached.scene(&ListFilter::default(), None).expect("it makes sense")
    }

    fn rates(scene: &Scene) -> Vec<u64> {
        scene.history.series(usize::MAX, |rates| rates.attempts)
    }

    /// A run counts from its own beginning: nothing of the run before is in its rates, its minute or its list. What
    /// was not recorded before a moment is told.
    #[test]
    fn a_run_knows_nothing_of_the_one_before() {
        let path = tempfile::tempdir().expect("a folder");
        let mut folder = Folder::open(path.path()).expect("it is ours");
        record_run(&mut folder, 0, 30, 5);
        record_run(&mut folder, 100, 30, 7);
        let reel = Reel::open(path.path()).expect("it is a recording");
        let last_of_one = scene(29, &reel);
        assert_eq!((rates(&last_of_one), last_of_one.ended.len()), (vec![5; 29], 5));
        let first = scene(30, &reel);
        assert_eq!((rates(&first), first.ended.len()), (vec![], 7));
        let past = first.past.as_ref().expect("it is of the past");
        assert_eq!((past.ago_ns, past.gap_ns), (29 * SECOND, 71 * SECOND));
        let later = scene(40, &reel);
        assert_eq!(rates(&later), vec![7; 10]);
        assert_eq!(later.services[0].minute.begun[..], [7; 10]);
        assert_eq!(later.past.expect("it is of the past").gap_ns, 0);
    }

    #[test]
    fn steps_stay_within_the_recording() {
        let path = tempfile::tempdir().expect("a folder");
        let mut folder = Folder::open(path.path()).expect("it is ours");
        record_run(&mut folder, 0, 10, 1);
        let reel = Reel::open(path.path()).expect("it is a recording");
        let go = |from: Option<usize>, step, is_live| {
            let mut timeline = Timeline(from);
            timeline.go(step, &reel, is_live);
            timeline.shown()
        };
        assert_eq!(go(None, Step::Back(1), true), Some(8));
        assert_eq!(go(Some(3), Step::Back(60), true), Some(0));
        assert_eq!(go(Some(8), Step::On(1), true), Some(9));
        assert_eq!([go(Some(9), Step::On(1), true), go(Some(9), Step::On(1), false)], [None, Some(9)]);
        assert_eq!([go(Some(3), Step::End, true), go(Some(3), Step::End, false)], [None, Some(9)]);
        let mut nowhere = Timeline::default();
        nowhere.go(Step::Back(1), &Reel::default(), true);
        assert_eq!(nowhere.shown(), None);
    }
}
