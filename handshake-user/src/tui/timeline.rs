//! The screens at a moment of a recording: how they were then, made of the blocks by the same functions as live.

use std::rc::Rc;
use std::sync::Arc;

use handshake_agent::model::flow::FlowId;
use handshake_agent::model::snapshot::Snapshot;
use handshake_agent::recording::Player;

use super::ScreenOptions;
use super::collect::Collecting;
use super::filter::ListFilter;
use super::owners::Owners;
use super::recent::Recent;
use super::scene::{PastMoment, Scene, SceneBuilder};
use super::surroundings::Around;
use crate::error::CommandError;
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

/// Makes the scenes of moments.
#[derive(Default)]
pub(crate) struct Timeline {
    /// The moment that is shown; `None` while the present is.
    shown: Option<usize>,
    made: Option<Made>,
}

/// What has been made up to a moment, for the next one.
struct Made {
    number: usize,
    filter: ListFilter,
    builder: SceneBuilder,
    recent: Recent,
}

impl Timeline {
    /// At this moment.
    pub(crate) fn at(number: usize) -> Self {
        Self { shown: Some(number), made: None }
    }

    /// The moment that is shown, if it is not the present.
    pub(crate) const fn shown(&self) -> Option<usize> {
        self.shown
    }

    /// Goes to another moment. `is_live`: the end is the present.
    pub(crate) fn go(&mut self, step: Step, reel: &Reel, is_live: bool) {
        let numbers = reel.numbers();
        let Some(last) = numbers.end.checked_sub(1).filter(|last| numbers.contains(last)) else { return };
        let number = self.shown.unwrap_or(last).max(numbers.start);
        let end = (!is_live).then_some(last);
        self.shown = match step {
            Step::Back(by) => Some(number.saturating_sub(by).max(numbers.start)),
            Step::On(by) => self.shown.map(|_| number + by).filter(|number| *number <= last).or(end),
            Step::End => end,
        };
    }

    /// The scene of the moment that is shown; `None` where it cannot be played.
    ///
    /// # Errors
    ///
    /// Those of reading the recording.
    pub(crate) fn scene(
        &mut self,
        reel: &Reel,
        filter: &ListFilter,
        wanted: Option<FlowId>,
        options: &ScreenOptions,
    ) -> Result<Option<Scene>, CommandError> {
        let Some(number) = self.shown else { return Ok(None) };
        let next = self.made.take().filter(|made| made.number + 1 == number && made.filter == *filter);
        let (from, mut builder, mut recent) = match next {
            Some(Made { builder, recent, .. }) => (number, builder, recent),
            None => {
                let mut recent = Recent::default();
                recent.filter_by(filter);
                let from = number.saturating_sub(BEFORE).max(reel.numbers().start);
                (from, SceneBuilder::within(options.zone, options.names), recent)
            }
        };
        let mut scene = None;
        reel.play(from..=number, &mut |at, player| {
            player.ended().into_iter().for_each(|flow| recent.push(flow));
            scene = if at == number {
                shown(player, filter, wanted, &mut builder, &mut recent)
            } else {
                pass(player, &mut builder);
                None
            };
        })
        .map_err(CommandError::output("read the recording"))?;
        if let Some(scene) = &mut scene
            && let Some(past) = &mut scene.past
        {
            let end = reel.numbers().end.checked_sub(1).and_then(|last| reel.time(last));
            past.ago_ns = end.map_or(0, |end| end.wall_ns.saturating_sub(scene.snapshot.taken_at_ns));
            self.made = Some(Made { number, filter: filter.clone(), builder, recent });
        }
        Ok(scene)
    }
}

/// Lets a moment pass that is not shown.
fn pass(player: &Player, builder: &mut SceneBuilder) {
    if let Some(snapshot) = player.moment().and_then(|mut moment| moment.snapshot().ok()) {
        builder.pass(snapshot);
    }
}

/// The scene of the latest block.
fn shown(
    player: &Player,
    filter: &ListFilter,
    wanted: Option<FlowId>,
    builder: &mut SceneBuilder,
    recent: &mut Recent,
) -> Option<Scene> {
    let mut moment = player.moment()?;
    let (context, inherited, left_out) =
        (Arc::clone(&moment.context), moment.inherited.clone(), moment.left_out);
    let owners = Rc::new(Owners::of_book(&context.owners));
    recent.name_by(&owners);
    let mut collecting = Collecting::new(&mut moment, filter, &owners, wanted);
    let snapshot = Snapshot::again(&mut collecting, &context, &inherited).ok()?;
    let mut kept = collecting.kept();
    if filter.is_empty() {
        // How many of them passed a filter is not known.
        kept.open_found += left_out.open;
    }
    let mut scene = builder.advance(snapshot, kept, recent, Vec::new(), Around::default());
    scene.past = Some(PastMoment { ago_ns: 0, left_out });
    Some(scene)
}
