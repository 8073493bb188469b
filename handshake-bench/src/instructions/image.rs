//! handshake's object as the agent's loader makes it: linked, with the sizes of its maps and its constants set.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};
use aya_obj::{Map, Object};
use handshake_agent::load;
use handshake_agent::source::live::ObjectChanges;
use handshake_agent::source::settings::{Settings, Sizes};

use super::machine::Instruction;

/// Maps without memory, and programs that refer to them.
pub(super) struct Image {
    /// A map's descriptor is its place, from 1 on.
    maps: Vec<(String, Map)>,
    /// A program for a hook, and the one that it tail-calls.
    pub(super) programs: [Vec<Instruction>; 2],
}

/// The places in [`Image::programs`].
pub(super) const ENTRY: usize = 0;
pub(super) const REST: usize = 1;

impl Image {
    /// Links the program with this name, and the one that it tail-calls.
    pub(super) fn link(elf: &[u8], program: &str, settings: &Settings) -> Result<Self> {
        let changes = ObjectChanges::of(settings, Sizes::for_flows(settings.max_flows))?;
        let mut object = Object::parse(elf).context("parse the object")?;
        let constants = changes.constants.iter();
        object.patch_map_data(
            constants.map(|(name, bytes, needed)| (*name, (&bytes[..], *needed))).collect(),
        )?;
        ensure!(!object.has_btf_relocations(), "the object depends on the kernel's types");
        let mut maps: Vec<(String, Map)> = object.maps.drain().collect();
        for (name, map) in &mut maps {
            if let Some((_, values)) = changes.sizes.iter().find(|(changed, _)| changed == name) {
                map.set_max_entries(*values);
            }
        }
        let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        let places = (1..).zip(&maps).map(|(descriptor, (name, map))| (name.as_str(), descriptor, map));
        object.relocate_maps(places, &sections)?;
        object.relocate_calls(&sections)?;
        let (rest, _) = load::next(program).with_context(|| format!("{program} calls no other"))?;
        Ok(Self { programs: [instructions(&object, program)?, instructions(&object, rest)?], maps })
    }

    pub(super) fn maps(&self) -> impl Iterator<Item = &Map> {
        self.maps.iter().map(|(_, map)| map)
    }

    /// The descriptor of a map.
    pub(super) fn descriptor(&self, name: &str) -> Result<i32> {
        let mut all = (1..).zip(&self.maps);
        let found = all.find(|(_, (map, _))| map == name).map(|(descriptor, _)| descriptor);
        found.with_context(|| format!("no map {name}"))
    }
}

fn instructions(object: &Object, name: &str) -> Result<Vec<Instruction>> {
    let program = object.programs.get(name).with_context(|| format!("no program {name}"))?;
    let function = object.functions.get(&program.function_key());
    let function = function.with_context(|| format!("{name} has no instructions"))?;
    Ok(function.instructions.iter().map(Instruction::from).collect())
}
