//! Whose the ends of flows are, on the screens.

use handshake_agent::fake::{Fake, SECOND, record, unit};
use handshake_agent::model::flow::Flow;
use handshake_agent::owner::{Container, Owner, OwnerBook, Pod, PodName};
use handshake_common::abi::Counter;
use handshake_common::record::State;
use handshake_common::verdict::Verdict;

use super::{ROW, SIZES, show, ui};
use crate::tui::filter::ListFilter;
use crate::tui::keys::Action;
use crate::tui::list;
use crate::tui::owners::Owners;
use crate::tui::recent::Recent;
use crate::tui::scene::Scene;
use crate::tui::screen::Screen;
use crate::tui::state::{EndWords, Ui};
use crate::tui::testing::SceneFixture;
use crate::tui::view::copied;

/// A host with attempts of a pod to a unit of its own, from a container, and to elsewhere; one has no owner.
fn owned() -> Scene {
    let name = PodName { namespace: "shop".to_owned(), name: "cart-6b7f".to_owned() };
    let pod = Pod { uid: "0d2f3a".to_owned(), name: Some(name) };
    let cart = Container { id: "0123456789abcdef".to_owned(), runtime: None, name: None };
    let database =
        Container { id: "fedcba9876543210".to_owned(), runtime: None, name: Some("db".to_owned()) };
    let at = |cgroup: &str| Owner { cgroup: cgroup.to_owned(), unit: None, container: None, pod: None };
    let owners = OwnerBook::fixed([
        (
            1,
            Owner {
                container: Some(cart),
                pod: Some(pod),
                ..at("/kubepods.slice/pod0d2f3a/0123456789abcdef")
            },
        ),
        (2, unit("nginx.service")),
        (3, Owner { container: Some(database), ..at("/machine.slice/libpod-fedcba9876543210.scope") }),
        (4, at("/user.slice/evil\u{1b}[2J")),
        (5, at("/")),
    ]);
    let mut fake = Fake::new();
    fake.service(ROW, "10.0.0.2:443");
    let mut fixture = SceneFixture::owned(fake, &["eth0"], owners);
    fixture.run(1, |fake, _| {
        for (at, ids) in [[1, 2], [3, 0], [0, 2], [4, 9], [5, 0]].into_iter().enumerate() {
            let open = fake.open(ROW, State::SynSent, (9 - at as u64) * SECOND);
            fake.records[open].control_groups.ids = ids;
        }
    })
}

/// Owners have a column where there is room, stand in the place of addresses where that is asked for, and are named
/// beside the ladder.
#[test]
fn ends_have_owners() {
    let scene = owned();
    let mut ui = ui(Screen::Attempts);
    for size in [SIZES[0], (100, 24), SIZES[1], SIZES[2]] {
        insta::assert_snapshot!(format!("owned_attempts_{}x{}", size.0, size.1), show(&scene, &ui, size));
    }
    ui.apply(Action::Names, &scene);
    ui.message = None;
    insta::assert_snapshot!("owned_attempts_by_owner_80x24", show(&scene, &ui, SIZES[0]));
    assert_eq!(scene.open.len(), 5);
    for (at, name) in [(0, "pod_to_unit"), (1, "container"), (4, "unknown")] {
        ui.opened = Some(scene.open[at]);
        insta::assert_snapshot!(format!("owned_ladder_{name}_80x24"), show(&scene, &ui, SIZES[0]));
    }
    assert!(copied(&scene, &Ui { opened: Some(scene.open[1]), ..ui }).contains("container db"));
}

/// A service is shown by its owner where all that is known of its flows agree; a unit that was started again is one.
#[test]
fn services_have_owners() {
    let owners = OwnerBook::fixed([
        (1, unit("nginx.service")),
        (2, unit("nginx.service")),
        (3, unit("haproxy.service")),
        (4, unit("db.service")),
    ]);
    let mut fake = Fake::new();
    for (row, address) in (ROW..).zip(["10.0.0.2:443", "10.0.0.2:80", "10.0.0.2:81"]) {
        fake.service(row, address);
    }
    let mut fixture = SceneFixture::owned(fake, &["eth0"], owners);
    for (at_ns, (service, group)) in
        (1..).zip([("443", 1), ("443", 2), ("443", 0), ("80", 3), ("80", 4), ("81", 9), ("81", 4)])
    {
        let client = format!("10.0.0.1:{at_ns}");
        let mut ended = record(&client, &format!("10.0.0.2:{service}"), State::Established);
        ended.control_groups.ids = [0, group];
        fixture.end(ended, Verdict::Completed, at_ns);
    }
    let scene = fixture.run(1, |fake, _| (ROW..4).for_each(|row| fake.ended(row, Counter::Completed, 3)));
    let mut ui = ui(Screen::Services);
    let addresses = show(&scene, &ui, SIZES[0]);
    assert!(!addresses.contains("service:"), "{addresses}");
    ui.ends = EndWords::Owner;
    for screen in [Screen::Services, Screen::Overview] {
        let shown = show(&scene, &Ui { screen, ..ui.clone() }, SIZES[1]);
        for name in ["\n nginx.service:443 ", "\n 10.0.0.2:80 ", "\n db.service:81 "] {
            assert!(shown.contains(name), "{shown}");
        }
    }
}

/// The words of the filter about owners; a text is looked for in what an owner is called.
#[test]
fn attempts_are_found_by_their_owners() {
    let scene = owned();
    for (words, found) in [
        ("unit:nginx.service", 2),
        ("unit:nginx", 2),
        ("unit:ginx", 0),
        ("unit:", 2),
        ("pod:cart", 1),
        ("pod:shop/cart-6b7f", 1),
        ("pod:0d2f", 1),
        ("pod:shop", 1),
        ("pod:6b7f", 0),
        ("container:db", 1),
        ("container:fedc", 1),
        ("container:0123", 1),
        ("cgroup:/", 4),
        ("cgroup:/machine.slice/", 1),
        ("cgroup:machine", 0),
        ("unit:nginx pod:cart", 1),
        ("CART", 1),
    ] {
        let filter = ListFilter::parse(words).expect(words);
        let order = ui(Screen::Attempts).attempts;
        assert_eq!(list::attempts(&scene, &filter, order).len(), found, "{words}");
        // The scan leaves out what the list would not show, except for text.
        let passes = |flow: &&Flow| filter.admits_record(&flow.record, &scene.moment(), &scene.owners);
        let passed = scene.open.iter().filter(passes).count();
        assert!(passed == found || filter.has_text(), "{words}: {passed}");
        assert!(
            filter.has_text() || list::services(&scene, &filter, ui(Screen::Services).services).len() == 1
        );
    }
}

/// An attempt that ends before its group is read in the tree is kept, and the list decides later.
#[test]
fn an_attempt_whose_owner_comes_later_is_not_lost() {
    let filter = ListFilter::parse("unit:backup").expect("a word");
    let mut recent = Recent::default();
    recent.filter_by(&filter);
    for (at_ns, group) in [(1, 7), (2, 8), (3, 0)] {
        let mut ended = record("10.0.0.1:1", "10.0.0.2:443", State::Refused);
        ended.key.ports += u32::try_from(at_ns).expect("small") << 16;
        ended.control_groups.ids = [group, 0];
        recent.push(Flow::ended(ended, Verdict::Refused, at_ns));
    }
    assert_eq!(recent.latest().len(), 2, "one has no group");
    let known = Owners::of_book(&OwnerBook::fixed([(7, unit("backup.service")), (8, unit("other.service"))]));
    let any = owned().moment();
    let fits = |flow: &&Flow| filter.admits(flow, &any, Some("eth0"), &known);
    assert_eq!(recent.latest().iter().filter(fits).count(), 1);
}
