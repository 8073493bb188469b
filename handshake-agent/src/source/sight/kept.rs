//! What the looks at the hooks have found, as words: what a recording has of it.

use super::{Finding, Lapse, Sight};
use crate::delta::{Taking, Worded, worded, worded_places};
use crate::hook::{Direction, Hook, HookLook, HookState, InterfaceLook, LinkState};

worded!(Sight { interfaces, hook_lost, interface_down, answered_ns });
worded!(Lapse { count, first_ns, last_ns, looked_ns, places });
worded!(Finding { from_ns, at_ns, over_ns, is_of_interface, words });
worded!(InterfaceLook { name, number, is_required, state, came_back, hooks });
worded!(HookLook { direction, hook, state, again });
worded_places!(Hook, Direction);

impl Worded for Result<(), String> {
    fn put(&self, to: &mut Vec<u64>) {
        self.as_ref().err().cloned().put(to);
    }

    fn take(from: &mut Taking<'_>) -> Option<Self> {
        Some(<Option<String> as Worded>::take(from)?.map_or(Ok(()), Err))
    }
}

impl Worded for LinkState {
    fn put(&self, to: &mut Vec<u64>) {
        match self {
            Self::Up => to.push(0),
            Self::NoCarrier => to.push(1),
            Self::Down => to.push(2),
            Self::Gone => to.push(3),
            Self::Refused(why) => (4_u8, why.clone()).put(to),
            Self::Unknown(why) => (5_u8, why.clone()).put(to),
        }
    }

    fn take(from: &mut Taking<'_>) -> Option<Self> {
        Some(match from.word()? {
            0 => Self::Up,
            1 => Self::NoCarrier,
            2 => Self::Down,
            3 => Self::Gone,
            4 => Self::Refused(String::take(from)?),
            5 => Self::Unknown(String::take(from)?),
            _ => return None,
        })
    }
}

impl Worded for HookState {
    fn put(&self, to: &mut Vec<u64>) {
        match self {
            Self::Ours => to.push(0),
            Self::Gone => to.push(1),
            Self::Behind(others) => (2_u8, others.clone()).put(to),
            Self::Unknown(why) => (3_u8, why.clone()).put(to),
            Self::Passing(errno) => (4_u8, errno.cast_unsigned()).put(to),
        }
    }

    fn take(from: &mut Taking<'_>) -> Option<Self> {
        Some(match from.word()? {
            0 => Self::Ours,
            1 => Self::Gone,
            2 => Self::Behind(Worded::take(from)?),
            3 => Self::Unknown(String::take(from)?),
            4 => Self::Passing(u32::take(from)?.cast_signed()),
            _ => return None,
        })
    }
}
