//! Scenes for tests, built from a fake source with one snapshot per second.

use std::sync::Arc;

use handshake_agent::fake::{BEGINNING, Fake, SECOND};
use handshake_agent::model::flow::Flow;
use handshake_agent::model::snapshot::{InterfaceHooks, LiveOrigin, Origin, RunContext, Snapshot};
use handshake_agent::owner::OwnerBook;
use handshake_agent::source::live::ProgramRuns;
use handshake_common::record::Record;
use handshake_common::verdict::Verdict;

use super::collect::Collecting;
use super::filter::ListFilter;
use super::owners::Owners;
use super::recent::Recent;
use super::scene::{Scene, SceneBuilder};
use super::surroundings::Around;

/// A fake source with the state of the live terminal.
pub(crate) struct SceneFixture {
    pub(crate) fake: Fake,
    pub(crate) programs: Vec<ProgramRuns>,
    pub(crate) around: Around,
    context: Arc<RunContext>,
    recent: Recent,
    builder: SceneBuilder,
    last: Option<Snapshot>,
    seconds: u64,
}

impl SceneFixture {
    pub(crate) fn new(fake: Fake) -> Self {
        Self::watching(fake, &["eth0"])
    }

    /// Of a host whose interfaces are watched each by itself.
    pub(crate) fn watching(fake: Fake, names: &[&str]) -> Self {
        Self::owned(fake, names, OwnerBook::default())
    }

    /// The same, with the owners of control groups.
    pub(crate) fn owned(fake: Fake, names: &[&str], owners: OwnerBook) -> Self {
        let interface = |name: &&str| InterfaceHooks {
            name: (*name).to_owned(),
            ingress: Some("tcx".to_owned()),
            egress: Some("tcx".to_owned()),
            ..InterfaceHooks::default()
        };
        let context = RunContext {
            origin: Origin::Live(LiveOrigin {
                groups: names.iter().map(|name| Some((*name).to_owned())).collect(),
                interfaces: names.iter().map(interface).collect(),
                gone: 0,
            }),
            began: BEGINNING,
            filter: handshake_agent::options::Filter::default(),
            top: usize::MAX,
            owners,
        };
        Self {
            fake,
            programs: Vec::new(),
            around: Around::default(),
            context: Arc::new(context),
            recent: Recent::default(),
            builder: SceneBuilder::default(),
            last: None,
            seconds: 0,
        }
    }

    /// Runs for so many seconds, applies `change` in each with its number, and returns the last scene.
    pub(crate) fn run(&mut self, seconds: u64, mut change: impl FnMut(&mut Fake, u64)) -> Scene {
        if self.last.is_none() {
            self.take();
        }
        let mut scene = None;
        for _ in 0..seconds {
            self.fake.later(SECOND);
            change(&mut self.fake, self.seconds);
            self.seconds += 1;
            scene = Some(self.take());
        }
        scene.expect("at least one second")
    }

    /// Adds an attempt that ended `ago_ns` nanoseconds ago.
    pub(crate) fn end(&mut self, record: Record, verdict: Verdict, ago_ns: u64) {
        let at_ns = self.fake.reading.now.ns - ago_ns;
        self.recent.push(Flow::ended(record, verdict, at_ns));
    }

    fn take(&mut self) -> Scene {
        let filter = ListFilter::default();
        let owners = Owners::of_book(&self.context.owners);
        let mut collecting = Collecting::new(&mut self.fake, &filter, &owners, None);
        let snapshot = Snapshot::take(&mut collecting, &self.context, self.last.as_ref());
        let snapshot = snapshot.expect("a fake never fails");
        let kept = collecting.kept();
        self.last = Some(snapshot.clone());
        self.builder.advance(snapshot, kept, &self.recent, self.programs.clone(), self.around.clone())
    }
}
