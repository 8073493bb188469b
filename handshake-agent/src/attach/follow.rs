//! Follows interfaces that come and go, and changes of their names.
//!
//! ```text
//! news of interfaces ─▶ list of all ─▶ gone: off the table      new and wanted: hooks on, then its gate opens
//! ```
//!
//! The kernel's news only say that something changed. What there is is then listed, so news that are lost do
//! no harm. Neither takes a privilege; nor does attaching by a link, with programs that are loaded.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::interface::{InterfaceInfo, known_by_driver};
use super::plan::plan_interface;
use super::selection::Demand;
use super::xdp::RESETS_DRIVER;
use super::{Attached, MissingInterface, PlannedInterface, facts_of, interface, is_gone};
use crate::error::Error;
use crate::hook::Hook;
use crate::source::live::KernelSide;

/// How long an interface must be gone before the run ends that has no other: one that is made again is gone
/// for a moment.
const LOST_AFTER: Duration = Duration::from_secs(1);
/// After this time the rest of many new interfaces waits for the next call: attaching to one takes the kernel
/// some 20 ms, and a signal must not wait for all.
const PIECE: Duration = Duration::from_millis(250);

impl Attached {
    /// A descriptor that can be read when there is news of interfaces; `None` if the kernel tells none.
    ///
    /// # Errors
    ///
    /// There is no descriptor left.
    pub fn news(&self) -> io::Result<Option<OwnedFd>> {
        self.news.as_ref().map(crate::netlink::LinkNews::descriptor).transpose()
    }

    /// Leaves the interfaces that are gone, attaches to those that have come and are wanted, and follows
    /// changes of names. `say` receives each as it happens. Returns whether anything changed.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if the interfaces cannot be listed, and [`Error::Live`] if the kernel refuses to
    /// change a map. The next call tries again.
    pub fn follow(&mut self, kernel: &mut dyn KernelSide, say: &mut dyn FnMut(&str)) -> Result<bool, Error> {
        let has_news = self.news.as_ref().is_none_or(crate::netlink::LinkNews::take);
        if !has_news && !self.is_stale {
            return Ok(false);
        }
        self.is_stale = true;
        let links = interface::list()?;
        let mut changed = self.leave_gone(kernel, &links, say)?;
        let has_room = self.may_have_room();
        self.refused.retain(|index, refused| {
            links.iter().any(|link| link.index == *index && link.name == refused.name)
                && !(has_room && refused.waits_for_room)
        });
        changed |= self.take_new(kernel, &links, say);
        // Room comes a moment after an interface has gone, without news.
        self.is_stale = self.has_more || self.may_have_room();
        Ok(changed)
    }

    /// Whether [`follow`](Self::follow) has left interfaces for the next call.
    #[must_use]
    pub const fn has_more(&self) -> bool {
        self.has_more
    }

    /// The latest interface that was lost, if none is left and none may come.
    #[must_use]
    pub fn lost(&self) -> Option<&str> {
        if !self.watched.is_empty() || self.plan.selection.is_open() {
            return None;
        }
        let latest = self.missing.last()?;
        (latest.since.elapsed() >= LOST_AFTER).then_some(latest.name.as_str())
    }

    fn leave_gone(
        &mut self,
        kernel: &mut dyn KernelSide,
        links: &[InterfaceInfo],
        say: &mut dyn FnMut(&str),
    ) -> Result<bool, Error> {
        let mut changed = false;
        let mut place = 0;
        while let Some(watched) = self.watched.get_mut(place) {
            let now = links.iter().find(|link| link.index == watched.on.info.index);
            match now.filter(|now| watched.is(now)) {
                Some(now) => {
                    if watched.on.info.name != now.name {
                        let old = std::mem::replace(&mut watched.on.info.name, now.name.clone());
                        say(&format!("{old} is now called {}", now.name));
                        self.groups.rename(&old, &now.name);
                        changed = true;
                    }
                    place += 1;
                }
                None => {
                    kernel.leave(watched.number)?;
                    let watched = self.watched.remove(place);
                    say(&format!("{} is gone", watched.on.info.name));
                    self.gone += 1;
                    self.lost += watched.lost();
                    if watched.demand == Demand::Required {
                        let (name, hooks) = (watched.chosen_as.clone(), watched.places());
                        self.missing.push(MissingInterface { name, since: Instant::now(), hooks });
                    }
                    changed = true;
                }
            }
        }
        Ok(changed)
    }

    fn take_new(
        &mut self,
        kernel: &mut dyn KernelSide,
        links: &[InterfaceInfo],
        say: &mut dyn FnMut(&str),
    ) -> bool {
        let mut changed = false;
        let until = Instant::now() + PIECE;
        self.has_more = false;
        for info in self.plan.selection.choose(links) {
            let is_known = self.watched.iter().any(|watched| watched.on.info.index == info.index)
                || self.refused.contains_key(&info.index);
            if is_known {
                continue;
            }
            if Instant::now() >= until {
                self.has_more = true;
                break;
            }
            let index = info.index;
            let facts = facts_of(known_by_driver(info), self.has_tcx, &self.plan.selection);
            let taken = plan_interface(&facts, self.plan.choice, self.plan.direction)
                .and_then(|planned| self.without_reset(planned))
                .and_then(|planned| self.take(kernel, &planned, say));
            match taken.and_then(|()| self.admit(kernel, say)) {
                Ok(()) => changed = true,
                // It was there for a moment.
                Err(_) if is_gone(index) => {}
                Err(error) => self.refuse(&facts.info, facts.demand, &error, say),
            }
        }
        changed
    }

    /// Opens the gate of the interface that was attached to last.
    fn admit(&mut self, kernel: &mut dyn KernelSide, say: &mut dyn FnMut(&str)) -> Result<(), Error> {
        let Some(watched) = self.watched.last_mut() else { return Ok(()) };
        kernel.set_gate(watched.number, true)?;
        say(&format!("attached {}", watched.on));
        let before = self.missing.len();
        self.missing.retain(|missing| missing.name != watched.chosen_as);
        watched.came_back |= self.missing.len() != before;
        Ok(())
    }

    /// Leaves out native XDP on hardware that comes back.
    fn without_reset(&self, mut planned: PlannedInterface) -> Result<PlannedInterface, Error> {
        let info = &planned.info;
        if info.is_virtual || !self.hardware.contains(&info.name) {
            return Ok(planned);
        }
        planned.ingress.retain(|step| step.hook != Hook::XdpNative);
        if planned.ingress.is_empty() {
            return Err(Error::Hook {
                interface: info.name.clone(),
                hook: Hook::XdpNative,
                problem: "is not attached to hardware that comes back".to_owned(),
                fix: RESETS_DRIVER.to_owned(),
                kernel: None,
            });
        }
        Ok(planned)
    }
}
