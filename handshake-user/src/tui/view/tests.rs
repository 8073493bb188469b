//! The screens of typical situations.

mod owners;

use std::sync::Arc;

use handshake_agent::fake::{Fake, SECOND, record, tcp, ticks, udp_record};
use handshake_agent::model::snapshot::{FIRST_UDP_ROW, Origin, RunContext, Snapshot};
use handshake_agent::source::live::ProgramRuns;
use handshake_common::abi::{Counter, NO_POINT, TcpRecord, UdpRecord, tag};
use handshake_common::flow::Family;
use handshake_common::interface::point;
use handshake_common::record::{Detail, Record, State};
use handshake_common::verdict::{Leg, Role, TCP, UdpVerdict, Verdict};
use handshake_common::wire::Class;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Modifier;

use super::{copied, draw};
use crate::names::Names;
use crate::time::Zone;
use crate::tui::filter::ListFilter;
use crate::tui::keys::{Action, Edit, Motion};
use crate::tui::list;
use crate::tui::scene::Scene;
use crate::tui::screen::Screen;
use crate::tui::state::{Effect, EndWords, Ui};
use crate::tui::surroundings::Elsewhere;
use crate::tui::testing::SceneFixture;
use crate::tui::theme::Theme;
use handshake_agent::model::flow::{Flow, FlowEnd, Standing};

const ROW: u16 = 1;
const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (200, 60)];
const SMALL: (u16, u16) = (60, 15);

fn show(scene: &Scene, ui: &Ui, (width, height): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a test's terminal");
    terminal.draw(|frame| draw(frame.buffer_mut(), scene, ui)).expect("it takes everything");
    let buffer = terminal.backend().buffer();
    let rows = buffer.content.chunks(usize::from(width));
    let text: Vec<String> = rows
        .map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned())
        .collect();
    text.join("\n")
}

fn ui(screen: Screen) -> Ui {
    Ui { screen, ..Ui::new(Theme { colour: true, ascii: false }) }
}

/// Compares every screen of a scene at both sizes with its snapshot.
fn snapshots(name: &str, scene: &Scene) {
    for screen in Screen::ALL {
        for (width, height) in SIZES {
            let shown = show(scene, &ui(screen), (width, height));
            let name = format!("{name}_{}_{width}x{height}", screen.title().to_lowercase());
            insta::assert_snapshot!(name, shown);
        }
    }
}

#[test]
fn nothing_was_seen_yet() {
    snapshots("empty", &SceneFixture::new(Fake::new()).run(1, |_, _| {}));
}

#[test]
fn typical_traffic() {
    snapshots("typical", &typical());
}

#[test]
fn something_was_lost() {
    snapshots("inexact", &inexact());
}

#[test]
fn a_flood() {
    snapshots("flood", &flood());
}

#[test]
fn the_smallest_terminal() {
    for (name, scene) in [("typical", typical()), ("flood", flood())] {
        for screen in Screen::ALL {
            let name = format!("{name}_{}_60x15", screen.title().to_lowercase());
            insta::assert_snapshot!(name, show(&scene, &ui(screen), SMALL));
        }
    }
    let ladder = Ui { opened: Some(typical().open[0]), ..ui(Screen::Attempts) };
    insta::assert_snapshot!("typical_ladder_60x15", show(&typical(), &ladder, SMALL));
    let help = Ui { help: true, ..ui(Screen::Overview) };
    insta::assert_snapshot!("help_60x15", show(&typical(), &help, SMALL));
    insta::assert_snapshot!("help_80x24", show(&typical(), &help, SIZES[0]));
    let shown = show(&typical(), &ui(Screen::Overview), (59, 15));
    assert_eq!(shown.trim_end(), "59x15 is too small: 60x15 needed");
    assert!(!show(&typical(), &ui(Screen::Overview), (5, 1)).is_empty());
}

/// An interface name of two wide characters is laid out like one of four narrow ones.
#[test]
fn a_wide_name_takes_two_columns_per_character() {
    let narrow = typical();
    let Origin::Live(mut live) = narrow.snapshot.context.origin.clone() else { panic!("it is live") };
    "网卡".clone_into(&mut live.interfaces[0].name);
    live.groups = vec![Some(live.interfaces[0].name.clone())];
    let mut wide = typical();
    let mut snapshot = Snapshot::clone(&narrow.snapshot);
    let context = RunContext { origin: Origin::Live(live), ..RunContext::clone(&snapshot.context) };
    snapshot.context = Arc::new(context);
    wide.snapshot = Arc::new(snapshot);
    let mut named = 0;
    for screen in Screen::ALL {
        for size in SIZES {
            // The cell after a wide character is blank, and blanks at the end of a row are trimmed.
            let shown = show(&wide, &ui(screen), size);
            named += shown.matches("网 卡").count();
            let shown = shown.replace("网 卡 ", "eth0").replace("网 卡", "eth0");
            assert_eq!(shown, show(&narrow, &ui(screen), size));
        }
    }
    assert!(named > SIZES.len() * Screen::ALL.len(), "it is in every header and in the hooks: {named}");
}

/// A ladder of each verdict of TCP and UDP, except of attempts without a SYN, and of evicted UDP flows, which look
/// as before.
#[test]
fn ladders() {
    let moment = typical().moment();
    let drawn: Vec<Standing> = conversations().iter().map(|(_, flow)| flow.standing(&moment)).collect();
    let udp = UdpVerdict::ALL.into_iter().filter(|verdict| *verdict != UdpVerdict::Evicted);
    // No record is there of what is untracked.
    let has_record = |name| name != "untracked";
    let udp = udp.filter(|verdict| has_record(verdict.name()));
    let tcp = TCP
        .iter()
        .filter(|row| row.role != Role::Outside && has_record(row.name))
        .map(|row| Standing::Tcp(row.verdict));
    for standing in tcp.chain(udp.map(Standing::Udp)) {
        assert!(drawn.contains(&standing), "no ladder of {standing:?}");
    }
    for (name, attempt) in conversations() {
        let (scene, ui) = (typical(), Ui { opened: Some(attempt), ..ui(Screen::Attempts) });
        for (width, height) in [SIZES[0], SIZES[1]] {
            let name = format!("ladder_{name}_{width}x{height}");
            insta::assert_snapshot!(name, show(&scene, &ui, (width, height)));
        }
    }
}

/// What is in no verdict of the identity is shown also where a flood leaves little room.
#[test]
fn what_is_in_no_attempt_is_shown() {
    let mut fixture = flooded();
    let scene = fixture.run(1, |fake, _| {
        fake.count(Counter::Midstream, 3);
        fake.count(Counter::OrphanSynAck, 7);
        fake.packets(Class::NonIp, Family::V4, 14);
        fake.ended(2, Counter::Refused, 900);
        fake.ended(2, Counter::InitiatorAborted, 900);
        fake.ended(ROW, Counter::Evicted, 50);
        udp(fake, 3);
    });
    for size in SIZES {
        let shown = show(&scene, &ui(Screen::Overview), size);
        for part in ["midstream 3", "orphan_syn_ack 7", "non_ip 14"] {
            assert!(shown.contains(part), "no {part:?} in\n{shown}");
        }
    }
}

/// Every cause that is worth a line has one where there is room; the worst service stays, and the headline is
/// whole, where there is little.
#[test]
fn causes_take_the_room_that_there_is() {
    let causes =
        [Counter::Refused, Counter::InitiatorAborted, Counter::ResponderAborted, Counter::Unreachable];
    let mut fake = Fake::new();
    (1..8).for_each(|row| fake.service(row, &format!("10.0.0.{row}:443")));
    let scene = SceneFixture::new(fake).run(1, |fake, _| {
        (1..8).for_each(|row| fake.ended(row, Counter::Completed, 60));
        (1..).zip(causes).for_each(|(row, cause)| fake.ended(row, cause, 100 - i64::from(row)));
        (0..20).for_each(|_| {
            fake.open(6, State::SynSent, 9 * SECOND);
        });
    });
    let [small, _, large] = SIZES.map(|size| show(&scene, &ui(Screen::Overview), size));
    let all = ["refused", "initiator_aborted", "responder_aborted", "unreachable", "no_syn_ack"];
    let named = |shown: &str| all.into_iter().filter(|name| shown.contains(&format!("\n {name} "))).count();
    assert_eq!(named(&large), all.len(), "{large}");
    assert!(named(&small) < all.len(), "{small}");
    for shown in [small, large] {
        let text = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(&format!("FAIL {}", scene.headline.text)), "{shown}");
        assert!(shown.contains("\n 10.0.0.1:443"), "{shown}");
    }
}

/// With ASCII only, every screen, ladder and the help are ASCII.
#[test]
fn the_ascii_theme_draws_only_ascii() {
    let ladders = conversations().into_iter().map(|(_, attempt)| Some(attempt));
    let scenes = [typical(), flood(), inexact()];
    for opened in ladders.chain([None]) {
        for scene in &scenes {
            for screen in Screen::ALL {
                for help in [false, true] {
                    let theme = Theme { colour: false, ascii: true };
                    let ui = Ui { opened, help, theme, frozen: true, ..ui(screen) };
                    let shown = show(scene, &ui, SIZES[0]);
                    assert!(shown.is_ascii() && !shown.contains('?') | shown.contains("? help"), "{shown}");
                }
            }
        }
    }
    let theme = Theme { colour: false, ascii: true };
    let ui = Ui { theme, ..ui(Screen::Overview) };
    insta::assert_snapshot!("flood_overview_ascii", show(&flood(), &ui, SIZES[0]));
}

/// Every screen at many sizes, including those that are too small.
#[test]
fn drawing_does_not_panic_at_any_size() {
    let scenes = [typical(), flood(), SceneFixture::new(Fake::new()).run(1, |_, _| {})];
    for scene in &scenes {
        for size in
            (0..221).step_by(13).flat_map(|width| (0..66).step_by(7).map(move |height| (width, height)))
        {
            for screen in Screen::ALL {
                show(scene, &ui(screen), (size.0.max(1), size.1.max(1)));
                let opened = scene.open.first().copied();
                show(scene, &Ui { opened, ..ui(screen) }, (size.0.max(1), size.1.max(1)));
            }
        }
    }
}

#[test]
fn text_is_the_same_without_colour() {
    let scene = flood();
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("a test's terminal");
    let mut look = |theme| {
        let ui = Ui { theme, ..ui(Screen::Overview) };
        terminal.draw(|frame| draw(frame.buffer_mut(), &scene, &ui)).expect("it takes everything");
        terminal.backend().buffer().clone()
    };
    let coloured = look(Theme { colour: true, ascii: false });
    let plain = look(Theme { colour: false, ascii: false });
    let colours = |buffer: &ratatui::buffer::Buffer| {
        buffer.content.iter().filter(|cell| cell.fg != ratatui::style::Color::Reset).count()
    };
    assert!(colours(&coloured) > 100 && colours(&plain) == 0);
    let text = |buffer: &ratatui::buffer::Buffer| {
        buffer.content.iter().map(|cell| cell.symbol().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(text(&coloured), text(&plain));
    let banner = plain.cell((1, 2)).expect("the third row");
    assert!(banner.modifier.contains(Modifier::REVERSED), "the banner stands out without colour");
}

#[test]
fn a_typed_filter_and_a_frozen_screen_are_shown() {
    let scene = typical();
    let mut ui = ui(Screen::Attempts);
    for action in [Action::Filter, Action::Freeze] {
        assert_eq!(ui.apply(action, &scene), None);
    }
    for character in "verdict:refused".chars() {
        ui.apply(Action::Edit(Edit::Type(character)), &scene);
    }
    insta::assert_snapshot!("typing_a_filter", show(&scene, &ui, SIZES[0]));
    ui.apply(Action::Edit(Edit::Erase), &scene);
    insta::assert_snapshot!("typing_a_wrong_filter", show(&scene, &ui, SIZES[0]));
    assert!(ui.filter.is_empty(), "a wrong filter applies nothing");
    ui.apply(Action::Edit(Edit::Accept), &scene);
    assert!(ui.input.is_some(), "a wrong filter is not accepted");
}

/// `n` shows owners, addresses and then names again, on each screen and in what `y` copies.
#[test]
fn ends_are_names_or_numbers() {
    let names = Names::fixed("10.0.0.2 web.example\n2001:db8::2 six.example\n", "https 443/tcp\n");
    let mut scene = typical();
    let mut ui = ui(Screen::Services);
    let before = show(&scene, &ui, SIZES[1]);
    scene.names = names;
    let turn = |ui: &mut Ui, scene: &Scene| {
        assert_eq!(ui.apply(Action::Names, scene), None);
        ui.message.take().expect("it says what ends are shown by")
    };
    for screen in [Screen::Overview, Screen::Attempts, Screen::Services] {
        ui.screen = screen;
        let named = show(&scene, &ui, SIZES[1]);
        assert!(named.contains("web.example:https"), "{named}");
        assert!(screen != Screen::Services || named.contains("six.example:https"), "{named}");
        assert_eq!(turn(&mut ui, &scene), " ends by owner, where it is known");
        assert_eq!(show(&scene, &ui, SIZES[1]), named, "no owner is known");
        assert_eq!(turn(&mut ui, &scene), " ends by address");
        let numbers = show(&scene, &ui, SIZES[1]);
        assert!(!numbers.contains("example") && numbers.contains("10.0.0.2:443"), "{numbers}");
        assert!(screen != Screen::Services || numbers == before);
        assert!(!copied(&scene, &ui).contains("example"));
        assert_eq!(turn(&mut ui, &scene), " ends by name, where it is known");
        assert!(copied(&scene, &ui).contains("web.example:https"));
    }
    ui.opened = scene.open.first().copied();
    let ladder = show(&scene, &ui, SIZES[1]);
    assert!(ladder.contains("→ web.example:https"), "{ladder}");
}

/// A capture tells no owners, so without --names there is nothing to turn to.
#[test]
fn a_capture_has_no_owners_to_turn_to() {
    let mut scene = typical();
    let mut snapshot = Snapshot::clone(&scene.snapshot);
    let origin = Origin::Capture(Default::default());
    snapshot.context = Arc::new(RunContext { origin, ..RunContext::clone(&snapshot.context) });
    scene.snapshot = Arc::new(snapshot);
    let mut ui = ui(Screen::Attempts);
    ui.apply(Action::Names, &scene);
    assert_eq!(
        (ui.ends, ui.message.take()),
        (EndWords::Name, Some(" names are shown with --names".to_owned()))
    );
    scene.names = Names::fixed("", "");
    for expected in [EndWords::Address, EndWords::Name] {
        ui.apply(Action::Names, &scene);
        assert_eq!(ui.ends, expected);
    }
}

#[test]
fn enter_opens_the_row_under_the_cursor() {
    let scene = typical();
    let mut ui = ui(Screen::Services);
    ui.apply(Action::Move(Motion::Down), &scene);
    ui.apply(Action::Open, &scene);
    assert_eq!((ui.screen, ui.filter.text.as_str()), (Screen::Attempts, "tcp [2001:db8::2]:443"));
    ui.apply(Action::Back, &scene);
    assert!(ui.filter.is_empty());
    ui.apply(Action::Move(Motion::Last), &scene);
    ui.apply(Action::Open, &scene);
    let rows = list::attempts(&scene, &ui.filter, ui.attempts);
    assert_eq!(ui.opened, rows.last().map(|attempt| **attempt));
    ui.apply(Action::Move(Motion::Up), &scene);
    ui.apply(Action::Back, &scene);
    assert_eq!(ui.opened, None);
    assert_eq!(ui.apply(Action::Quit, &scene), Some(Effect::Quit));
}

/// The key `f`: what failed alone, on the lists; elsewhere it shows Attempts.
#[test]
fn failures_are_listed_alone() {
    let scene = typical();
    let mut ui = ui(Screen::Overview);
    ui.apply(Action::Failures, &scene);
    assert_eq!((ui.screen, ui.filter.text.as_str()), (Screen::Attempts, "failures"));
    let all = list::attempts(&scene, &Default::default(), ui.attempts).len();
    let listed = list::attempts(&scene, &ui.filter, ui.attempts);
    assert!(listed.len() < all && listed.iter().all(|each| !each.standing(&scene.moment()).is_good()));
    insta::assert_snapshot!("failures", show(&scene, &ui, SIZES[0]));
    ui.apply(Action::Go(Screen::Services), &scene);
    assert_eq!(list::services(&scene, &ui.filter, ui.services).len(), 3, "one has none");
    ui.apply(Action::Failures, &scene);
    assert!(ui.screen == Screen::Services && ui.filter.is_empty());
}

/// Connections without an answer are marked, are among the failures, and are found by their flag.
#[test]
fn silent_connections_are_found() {
    let mut fake = Fake::new();
    fake.service(ROW, "10.0.0.2:443");
    fake.service(2, "10.0.0.3:22");
    let mut fixture = SceneFixture::new(fake);
    fixture.run(1, |fake, _| {
        fake.ended(2, Counter::Completed, 40);
        (4..12).for_each(|asked| fake.silent(ROW, asked * SECOND));
        fake.open(ROW, State::Established, 9 * SECOND);
    });
    // Its completion was seen as well.
    let seen = fixture.fake.records[0];
    fixture.end(seen, Verdict::Completed, 4 * SECOND);
    let late = with(record("10.0.0.8:9", "10.0.0.2:443", State::Established), |tcp| tcp.latest_after = 1);
    fixture.end(Record { flags: late.flags | tag::LATE, ..late }, Verdict::Completed, SECOND);
    let scene = fixture.run(1, |_, _| {});
    let mut ui = ui(Screen::Services);
    insta::assert_snapshot!("silent_services_60x15", show(&scene, &ui, SMALL));
    insta::assert_snapshot!("silent_services_80x24", show(&scene, &ui, SIZES[0]));
    ui.apply(Action::Go(Screen::Attempts), &scene);
    insta::assert_snapshot!("silent_attempts_80x24", show(&scene, &ui, SIZES[0]));
    let mut listed = |words: &str| {
        ui.filter = ListFilter::parse(words).expect(words);
        let lists = (
            list::attempts(&scene, &ui.filter, ui.attempts),
            list::services(&scene, &ui.filter, ui.services),
        );
        (lists.0.len(), lists.1.len())
    };
    for (words, found) in [
        ("silent", (8, 1)),
        ("failures", (8, 1)),
        ("port:443 failures", (8, 1)),
        ("port:22 failures", (0, 0)),
        ("late", (1, 2)),
        ("revised", (0, 2)),
        ("", (9, 2)),
    ] {
        assert_eq!(listed(words), found, "{words}");
    }
    ui.filter = ListFilter::default();
    ui.apply(Action::Clients, &scene);
    insta::assert_snapshot!("silent_clients_80x24", show(&scene, &ui, SIZES[0]));
    ui.apply(Action::Back, &scene);
    ui.apply(Action::Move(Motion::Down), &scene);
    ui.apply(Action::Open, &scene);
    insta::assert_snapshot!("silent_ladder_80x24", show(&scene, &ui, SIZES[0]));
}

/// On a router, a segment that came in and did not leave ends in this host, and so says the sentence.
#[test]
fn what_is_lost_in_this_host_ends_there() {
    let (from_client, from_server) = (point(0, false), point(1, false));
    let scene = |lost: Record, points: u8| {
        let mut fixture = SceneFixture::watching(Fake::new(), &["cli0", "srv0"]);
        let now = fixture.fake.reading.now.ns;
        fixture.fake.records.push(with(lost, |tcp| (tcp.opened_ns, tcp.points) = (now - 9 * SECOND, points)));
        fixture.run(1, |_, _| {})
    };
    let ladder = |scene: &Scene| {
        let opened = Some(scene.open[0]);
        show(scene, &Ui { opened, ..ui(Screen::Attempts) }, SIZES[0])
    };
    let lost_syn = scene(no_syn_ack(), NO_POINT << 4 | from_client);
    insta::assert_snapshot!("ladder_lost_syn_80x24", ladder(&lost_syn));
    let lost_syn_ack = scene(no_ack(), from_server << 4 | from_client);
    insta::assert_snapshot!("ladder_lost_syn_ack_80x24", ladder(&lost_syn_ack));
    let passed_on = no_syn_ack();
    let passed_on = Record { flags: passed_on.flags | tag::PASSED_ON, ..passed_on };
    let passed_on = ladder(&scene(passed_on, NO_POINT << 4 | from_client));
    assert!(passed_on.contains("the responder's side") && !passed_on.contains("this host"), "{passed_on}");
}

/// Attempts of 200 clients of one network fail, and those of two others do not.
fn one_bad_network() -> Scene {
    let mut fake = Fake::new();
    fake.service(ROW, "10.0.0.2:443");
    let mut fixture = SceneFixture::new(fake);
    for client in 1..=200 {
        let bad = record(&format!("10.20.7.{client}:40000"), "10.0.0.2:443", State::SynReceived);
        let bad = with(bad, |tcp| tcp.opened_ns = Fake::new().reading.now.ns - 5 * SECOND);
        fixture.fake.records.push(bad);
        let good =
            record(&format!("10.20.{}.9:{}", client % 2, 1_000 + client), "10.0.0.2:443", State::Established);
        fixture.end(good, Verdict::Completed, SECOND);
    }
    let refused = record("[2001:db8:7:8::9]:5", "[2001:db8::2]:443", State::Refused);
    fixture.end(refused, Verdict::Refused, SECOND);
    fixture.run(1, |_, _| {})
}

/// The key `c` answers which clients fail.
#[test]
fn attempts_are_counted_by_the_networks_of_clients() {
    let scene = one_bad_network();
    let mut ui = ui(Screen::Overview);
    ui.apply(Action::Clients, &scene);
    assert_eq!(ui.screen, Screen::Attempts);
    insta::assert_snapshot!("clients_80x24", show(&scene, &ui, SIZES[0]));
    let lines = list::clients(&scene, &ui.filter);
    let counts: Vec<_> = lines
        .iter()
        .map(|line| (line.network.to_string(), line.attempts, line.half_open, line.failed, line.completed))
        .collect();
    let expected = [
        ("10.20.7.0/24", 200, 200, 0, 0),
        ("2001:db8:7::/48", 1, 0, 1, 0),
        ("10.20.0.0/24", 100, 0, 0, 100),
        ("10.20.1.0/24", 100, 0, 0, 100),
    ];
    assert_eq!(
        counts,
        expected.map(|(name, all, open, failed, good)| (name.to_owned(), all, open, failed, good))
    );
    ui.apply(Action::Move(Motion::Down), &scene);
    ui.apply(Action::Open, &scene);
    assert!(!ui.clients);
    assert_eq!(ui.filter.text, "client:2001:db8:7::/48");
    assert_eq!(list::attempts(&scene, &ui.filter, ui.attempts).len(), 1);
    for (action, clients) in
        [(Action::Clients, true), (Action::Back, false), (Action::Clients, true), (Action::Clients, false)]
    {
        ui.apply(action, &scene);
        assert_eq!(ui.clients, clients, "{action:?}");
    }
}

/// The key `!` shows the failures that the banner is about.
#[test]
fn the_banner_leads_to_its_failures() {
    let mut ui = ui(Screen::Health);
    ui.apply(Action::Jump, &typical());
    assert!(ui.message.take().is_some() && ui.screen == Screen::Health, "there is none");
    let scene = flood();
    ui.clients = true;
    ui.apply(Action::Jump, &scene);
    assert_eq!((ui.screen, ui.clients), (Screen::Attempts, false));
    assert_eq!(ui.filter.text, "tcp 10.0.0.2:443 failures");
    assert_eq!(list::attempts(&scene, &ui.filter, ui.attempts).len(), 900);
}

/// The key `y`: the ladder that is open, else the report.
#[test]
fn a_copy_is_plain_text() {
    let scene = typical();
    assert_eq!(ui(Screen::Overview).clone().apply(Action::Copy, &scene), Some(Effect::Copy));
    insta::assert_snapshot!("copied_report", copied(&scene, &ui(Screen::Overview)));
    let opened = Ui { opened: Some(scene.open[0]), ..ui(Screen::Attempts) };
    let text = copied(&scene, &opened);
    assert!(text.lines().all(|line| !line.ends_with(' ')) && !text.contains('\u{1b}'), "{text}");
    insta::assert_snapshot!("copied_ladder", text);
}

/// The row under the cursor is reversed in one tone, whatever its cells are otherwise.
#[test]
fn the_row_under_the_cursor_has_one_style() {
    let scene = typical();
    for screen in [Screen::Attempts, Screen::Services] {
        let mut terminal = Terminal::new(TestBackend::new(120, 40)).expect("a test's terminal");
        terminal.draw(|frame| draw(frame.buffer_mut(), &scene, &ui(screen))).expect("it takes everything");
        let buffer = terminal.backend().buffer();
        let is_reversed = |row: &&[ratatui::buffer::Cell]| row[1].modifier.contains(Modifier::REVERSED);
        let selected: Vec<_> = buffer.content.chunks(120).skip(3).filter(is_reversed).collect();
        assert_eq!(selected.len(), 1);
        let first = &selected[0][0];
        let same = |cell: &ratatui::buffer::Cell| cell.modifier == first.modifier && cell.fg == first.fg;
        assert!(selected[0].iter().all(same), "{screen:?}");
    }
}

/// The help lies over a screen in colours, and takes none of them.
#[test]
fn the_help_has_no_colour() {
    let scene = flood();
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("a test's terminal");
    let help = Ui { help: true, ..ui(Screen::Overview) };
    terminal.draw(|frame| draw(frame.buffer_mut(), &scene, &help)).expect("it takes everything");
    let buffer = terminal.backend().buffer();
    let inner = (12..68).flat_map(|x| (2..21).map(move |y| (x, y)));
    let coloured =
        inner.filter_map(|at| buffer.cell(at)).find(|cell| cell.fg != ratatui::style::Color::Reset);
    assert_eq!(coloured, None);
}

/// A quiet screen says for how long, and where other traffic is.
#[test]
fn a_quiet_screen_says_where_traffic_is() {
    let mut fixture = SceneFixture::new(Fake::new());
    fixture.around.busiest = Some(Elsewhere { name: "cni0".to_owned(), rate: 4_100 });
    let shown = show(&fixture.run(13, |_, _| {}), &ui(Screen::Overview), SIZES[0]);
    assert!(
        shown.contains("QUIET   no SYN on eth0 for 13 s · cni0 sees 4 100 packets/s: -i cni0"),
        "{shown}"
    );
}

/// Times are those of the zone, with its offset in the header.
#[test]
fn times_are_local() {
    let mut scene = flood();
    scene.zone = Zone::posix("XYZ-5:45");
    let shown = show(&scene, &ui(Screen::Overview), SIZES[1]);
    assert!(
        shown.contains(" 17:48:49 +05:45 · 8 s · EXACT") && shown.contains(" since 17:48:47 "),
        "{shown}"
    );
    let shown = show(&scene, &Ui { opened: scene.open.first().copied(), ..ui(Screen::Attempts) }, SIZES[1]);
    assert!(shown.contains("began 17:48:4"), "{shown}");
}

/// Where the times are not of the latest intervals, they do not say so.
#[test]
fn times_of_the_whole_run_are_called_that() {
    let mut fixture = SceneFixture::new(Fake::new());
    let busy = fixture.run(1, |fake, _| fake.sample(Leg::Connect, 18_000_000, 5));
    assert!(show(&busy, &ui(Screen::Overview), SIZES[0]).contains("last 1 s"));
    let quiet = fixture.run(12, |_, _| {});
    assert!(show(&quiet, &ui(Screen::Overview), SIZES[0]).contains("whole run"));
}

/// The cursor stays on its row when new rows appear above it.
#[test]
fn the_cursor_stays_on_its_row() {
    let mut fixture = SceneFixture::new(Fake::new());
    let scene = fixture.run(1, |fake, _| {
        for age in [5, 4, 3] {
            fake.open(ROW, State::SynSent, age * SECOND);
        }
    });
    let mut ui = ui(Screen::Attempts);
    ui.apply(Action::Move(Motion::Down), &scene);
    let on = list::attempts(&scene, &ui.filter, ui.attempts)[1].id();
    let later = fixture.run(1, |fake, _| {
        fake.open(ROW, State::SynSent, 30 * SECOND);
    });
    let ids: Vec<_> = list::attempts(&later, &ui.filter, ui.attempts).iter().map(|each| each.id()).collect();
    assert_eq!(ids[ui.on_attempt.row(&ids)], on);
    assert_eq!(ui.on_attempt.row(&ids), 2);
}

#[test]
fn sorting_cycles_through_the_columns() {
    let scene = typical();
    for screen in [Screen::Attempts, Screen::Services] {
        let mut ui = ui(screen);
        let first = ui.clone();
        let mut seen = Vec::new();
        loop {
            ui.apply(Action::Sort, &scene);
            seen.push(show(&scene, &ui, SIZES[1]));
            if ui == first {
                break;
            }
            assert!(seen.len() < 10, "the first order does not return");
        }
        seen.dedup();
        assert!(seen.len() >= 5, "the orders differ");
        ui.apply(Action::Reverse, &scene);
        assert_ne!(show(&scene, &ui, SIZES[1]), seen[seen.len() - 1]);
    }
}

/// A server whose clients mostly connect.
fn typical() -> Scene {
    let mut fake = Fake::new();
    fake.service(ROW, "10.0.0.2:443");
    fake.service(2, "10.0.0.3:22");
    fake.service(3, "[2001:db8::2]:443");
    fake.service(FIRST_UDP_ROW + 1, "10.0.0.2:53");
    let mut fixture = SceneFixture::new(fake);
    fixture.run(14, |fake, at| {
        let wave = [12, 30, 52, 70, 84, 90, 84, 70, 52, 30][usize::try_from(at % 10).unwrap_or(0)];
        fake.ended(ROW, Counter::Completed, 100 * wave);
        fake.ended(3, Counter::Completed, wave);
        fake.ended(2, Counter::Completed, 2);
        fake.ended(2, Counter::Refused, i64::from(at % 3 == 0));
        for (leg, ns) in
            [(Leg::SynToSynAck, 41_000), (Leg::SynAckToAck, 18_000_000), (Leg::Connect, 18_100_000)]
        {
            for (ns, count) in [(ns, 90), (ns * 2, 40), (ns * 5, 9)] {
                if leg == Leg::Connect { fake.connect(ROW, ns, count) } else { fake.sample(leg, ns, count) }
            }
        }
        fake.packets(Class::Syn, Family::V4, 5_100);
        fake.packets(Class::Ack, Family::V4, 61_000);
        udp(fake, 3);
    });
    fixture.end(record("10.0.0.9:50000", "10.0.0.3:22", State::Refused), Verdict::Refused, SECOND);
    for (name, attempt) in conversations() {
        if let Some(FlowEnd { standing: Standing::Tcp(verdict), .. }) = attempt.ended
            && name != "refused"
        {
            fixture.end(attempt.record, verdict, 2 * SECOND);
        }
    }
    fixture.programs = [30_000, 45_000]
        .into_iter()
        .zip([("handshake_egress", 81), ("handshake_ingress", 80)])
        .map(|(runs, (name, id))| ProgramRuns { id, name: name.to_owned(), runs, ns: runs * 62 })
        .collect();
    fixture.run(1, |fake, _| {
        fake.ended(ROW, Counter::Completed, 1_204);
        fake.open(ROW, State::SynSent, SECOND / 50);
        fake.open(ROW, State::SynReceived, 5 * SECOND);
        let at = fake.open(ROW, State::SynSent, 7 * SECOND);
        let retried = TcpRecord { syn: 3, latest_after: ticks(3 * SECOND), ..tcp(&fake.records[at]) };
        fake.records[at].detail = Detail::Tcp(retried);
        udp(fake, 2);
        fake.packets(Class::Syn, Family::V4, 1_210);
    })
}

fn udp(fake: &mut Fake, count: i64) {
    fake.count(Counter::UdpPackets, 2 * count);
    for (counter, by) in
        [(Counter::UdpFlows, count), (Counter::UdpAnswered, count - 1), (Counter::UdpWaiting, 1)]
    {
        fake.gauge(FIRST_UDP_ROW + 1, counter, by);
    }
    let mut answered = udp_record("10.0.0.1:5353", "10.0.0.2:53", State::UdpAnswered);
    let opened_ns = fake.reading.now.ns - SECOND;
    let figures = UdpRecord {
        opened_ns,
        packets: [2, 2],
        bytes: [120, 400],
        answer_after: ticks(310_000),
        ..UdpRecord::default()
    };
    answered.detail = Detail::Udp(figures);
    answered.last_jiffies = fake.reading.now.jiffies;
    fake.records.push(answered);
}

/// More flows than the table holds, and lost events.
fn inexact() -> Scene {
    let mut fake = Fake::new();
    fake.service(ROW, "10.0.0.2:443");
    SceneFixture::new(fake).run(4, |fake, _| {
        fake.ended(ROW, Counter::Completed, 9_000);
        fake.ended(ROW, Counter::Evicted, 120);
        fake.count(Counter::Untracked, 1_200);
        fake.count(Counter::LostEvents, 33);
        fake.count(Counter::EvictedHalfOpen, 120);
        fake.count(Counter::EvictedClosed, 70_000);
        fake.reading.lost_before_hook += 5;
        fake.packets(Class::Syn, Family::V4, 10_320);
        for state in [State::Established, State::Closed, State::Midstream] {
            fake.records.push(record("10.0.0.1:40000", "10.0.0.2:443", state));
        }
    })
}

/// A flood with spoofed sources against one service, with other clients that connect.
fn flood() -> Scene {
    let mut fixture = flooded();
    fixture.run(1, |fake, _| flood_on(fake, true))
}

/// The same, a second earlier.
fn flooded() -> SceneFixture {
    let mut fake = Fake::new();
    fake.service(ROW, "10.0.0.2:443");
    fake.service(2, "10.0.0.3:22");
    let mut fixture = SceneFixture::new(fake);
    fixture.run(7, |fake, at| flood_on(fake, at >= 2));
    fixture
}

fn flood_on(fake: &mut Fake, is_attacked: bool) {
    fake.ended(ROW, Counter::Completed, 40);
    fake.ended(2, Counter::Completed, 3);
    fake.connect(ROW, 18_000_000, 40);
    fake.connect(2, 9_000, 3);
    for _ in 0..if is_attacked { 300 } else { 0 } {
        fake.open(ROW, State::SynReceived, 0);
    }
    fake.count(Counter::SynAckRetransmits, 250);
    fake.packets(Class::Syn, Family::V4, 343);
}

const J: u32 = 305_419_896;
const K: u32 = 2_271_560_481;

/// A flow of each verdict.
fn conversations() -> Vec<(&'static str, Flow)> {
    [completed(), given_up(), waiting(), exchanges()].concat()
}

/// The ways to complete.
fn completed() -> Vec<(&'static str, Flow)> {
    let at = |record: Record, after_ns: u64| with(record, |tcp| tcp.latest_after = ticks(after_ns));
    let plain = at(answered(State::Established, SECOND), 18_000_000);
    let mut fast = at(with(answered(State::Established, SECOND), |tcp| tcp.syn_data = 10), 18_000_000);
    fast.flags |= tag::FAST_OPEN;
    let mut both =
        at(with(syn(State::Established, SECOND), |tcp| (tcp.isn_responder, tcp.syn) = (K, 2)), 900_000);
    both.flags |= tag::SIMULTANEOUS | tag::RESPONDER_SYN;
    let mut one_sided = at(with(syn(State::Established, SECOND), |tcp| tcp.isn_responder = K), 900_000);
    one_sided.flags |= tag::ONE_SIDED;
    vec![
        ("completed", ended(plain, Verdict::Completed, 18_000_000)),
        ("fast_open", Flow::of(fast)),
        ("simultaneous_open", Flow::of(both)),
        ("one_sided", Flow::of(one_sided)),
    ]
}

/// The other ends of an attempt.
fn given_up() -> Vec<(&'static str, Flow)> {
    let refused = syn(State::Refused, SECOND);
    let unreachable = syn(State::Unreachable, SECOND);
    let (initiator, responder) = (State::InitiatorAborted, State::ResponderAborted);
    let late = 82 * SECOND;
    vec![
        ("refused", ended(refused, Verdict::Refused, 55_000)),
        ("unreachable", ended(unreachable, Verdict::Unreachable, 700_000)),
        ("initiator_aborted", ended(answered(initiator, SECOND), Verdict::InitiatorAborted, 90_000)),
        ("responder_aborted", ended(answered(responder, SECOND), Verdict::ResponderAborted, 95_000)),
        ("superseded", ended(no_syn_ack(), Verdict::Superseded, 8 * SECOND)),
        ("half_open_expired", ended(no_ack(), Verdict::HalfOpenExpired, late)),
        ("evicted", ended(syn(State::SynSent, SECOND), Verdict::Evicted, SECOND / 2)),
    ]
}

/// The open attempts.
fn waiting() -> Vec<(&'static str, Flow)> {
    vec![
        ("opening", Flow::of(syn(State::SynSent, SECOND))),
        ("half_open_no_syn_ack", Flow::of(no_syn_ack())),
        ("half_open_no_ack", Flow::of(no_ack())),
    ]
}

/// The UDP flows.
fn exchanges() -> Vec<(&'static str, Flow)> {
    let exchange_to = |responder, state, ago_ns: u64, packets, answer_after| {
        let mut record = udp_record("192.0.2.1:5353", responder, state);
        let bytes = [120, 400];
        let opened_ns = typical_now() - ago_ns;
        record.detail =
            Detail::Udp(UdpRecord { opened_ns, packets, bytes, answer_after, ..UdpRecord::default() });
        Flow::of(record)
    };
    let exchange = |state, ago_ns, packets, answer_after| {
        exchange_to("192.0.2.2:53", state, ago_ns, packets, answer_after)
    };
    vec![
        ("udp_tunnel", exchange_to("192.0.2.2:4789", State::UdpWaiting, 5 * SECOND, [3, 0], 0)),
        ("udp_answered", exchange(State::UdpAnswered, SECOND, [2, 2], ticks(310_000))),
        ("udp_unanswered", exchange(State::UdpWaiting, 5 * SECOND, [3, 0], 0)),
        ("udp_pending", exchange(State::UdpWaiting, SECOND, [1, 0], 0)),
        ("udp_unreachable", exchange(State::UdpUnreachable, SECOND, [1, 0], 0)),
        ("udp_multicast", exchange(State::UdpMulticast, SECOND, [9, 0], 0)),
    ]
}

/// An attempt with four SYNs and no answer.
fn no_syn_ack() -> Record {
    with(syn(State::SynSent, 9 * SECOND), |tcp| (tcp.syn, tcp.latest_after) = (4, ticks(7 * SECOND)))
}

/// An attempt with four SYN+ACKs and no ACK.
fn no_ack() -> Record {
    with(answered(State::SynReceived, 8 * SECOND), |tcp| {
        (tcp.syn_ack, tcp.syn_ack_retransmits, tcp.latest_after) = (4, 3, ticks(7 * SECOND));
    })
}

fn answered(state: State, ago_ns: u64) -> Record {
    with(syn(state, ago_ns), |tcp| {
        (tcp.isn_responder, tcp.syn_ack) = (K, 1);
        (tcp.syn_ack_after, tcp.latest_after) = (ticks(41_000), ticks(41_000));
    })
}

/// An attempt whose SYN came `ago_ns` before the end of [`typical`].
fn syn(state: State, ago_ns: u64) -> Record {
    let opened_ns = typical_now() - ago_ns;
    with(record("192.0.2.1:40012", "192.0.2.2:443", state), |tcp| {
        (tcp.opened_ns, tcp.isn_initiator) = (opened_ns, J);
    })
}

fn with(mut record: Record, change: impl FnOnce(&mut TcpRecord)) -> Record {
    let mut changed = tcp(&record);
    change(&mut changed);
    record.detail = Detail::Tcp(changed);
    record
}

fn ended(record: Record, verdict: Verdict, after_ns: u64) -> Flow {
    let at_ns = Flow::of(record).opened_ns() + after_ns;
    Flow::ended(record, verdict, at_ns)
}

/// The end of [`typical`] on the records' clock, ns.
fn typical_now() -> u64 {
    Fake::new().reading.now.ns + 15 * SECOND
}
