//! What attaching the first native XDP program does to a running device, by driver: [`ROWS`].
//!
//! Each row was read in the sources of Linux 6.1 and 6.12, where they have native XDP for it; `mana` and
//! `idpf` in newer sources too, and `fbnic` there alone. A row has the worst of what was read. Where a device
//! is set up anew for the program, it is again when the program is detached. `docs/drivers.md` prints the
//! rows.

use super::interface::InterfaceInfo;
use NativeEffect::{LinkDown, MayNotRun, Nothing, OffloadsOff, PassedOn, QueuesAnew};

/// How much less time native XDP takes than TC, in per cent, for a packet of a known IPv4 connection: the net
/// figures of `tcp4_hot` and `tcp4_hot_tc` in `docs/performance.md`.
pub const NATIVE_SAVES_PERCENT: u32 = 27;

/// What attaching the first native XDP program does to a running device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativeEffect {
    /// The driver stores the program.
    Nothing,
    /// Frames that the sender or the device merges come one by one while the program is attached.
    OffloadsOff,
    /// The driver stops its queues and makes new ones; packets are lost meanwhile.
    QueuesAnew,
    /// The same, and the driver takes the link down for it: bonds and routing daemons see it go.
    LinkDown,
    /// The driver hands the program to the devices beneath, whose drivers do what they do.
    PassedOn,
    /// The driver may take the program, report success, and never run it.
    MayNotRun,
    /// The driver has no row.
    Unknown,
}

impl NativeEffect {
    /// Every effect.
    pub const ALL: [Self; 7] =
        [Nothing, OffloadsOff, QueuesAnew, LinkDown, PassedOn, MayNotRun, Self::Unknown];

    /// Its name in `docs/drivers.md`.
    pub const fn name(self) -> &'static str {
        match self {
            Nothing => "nothing",
            OffloadsOff => "offloads off",
            QueuesAnew => "queues anew",
            LinkDown => "link down",
            PassedOn => "passed on",
            MayNotRun => "may not run",
            Self::Unknown => "not known",
        }
    }

    /// It in a sentence.
    pub const fn sentence(self) -> &'static str {
        match self {
            Nothing => "native XDP leaves the device as it is",
            OffloadsOff => "native XDP turns off the offloads that merge packets, while it is attached",
            QueuesAnew => "native XDP stops the device's queues and sets them up anew",
            LinkDown => "native XDP sets up the device's queues anew, and takes its link down for that time",
            PassedOn => "native XDP is passed to the devices beneath, which may be set up anew",
            MayNotRun => "native XDP may be accepted and never run",
            Self::Unknown => "what native XDP does to a device of this driver is not known",
        }
    }

    /// Whether `--hook auto` may cause it.
    pub const fn suits_auto(self) -> bool {
        match self {
            Nothing | OffloadsOff => true,
            QueuesAnew | LinkDown | PassedOn | MayNotRun | Self::Unknown => false,
        }
    }

    /// Whether packets may be lost because of it, each time a program is attached or detached.
    pub const fn interrupts(self) -> bool {
        match self {
            QueuesAnew | LinkDown | PassedOn | Self::Unknown => true,
            Nothing | OffloadsOff | MayNotRun => false,
        }
    }
}

/// A driver with native XDP.
#[derive(Clone, Copy, Debug)]
pub struct DriverRow {
    /// Its name, as `ETHTOOL_GDRVINFO` reports it.
    pub name: &'static str,
    /// What attaching does.
    pub effect: NativeEffect,
    /// Whether Linux 6.1 has native XDP for it.
    pub since_61: bool,
    /// Where that was read: files below `drivers/net` in the sources of Linux, and their functions.
    pub source: &'static str,
}

const fn row(name: &'static str, effect: NativeEffect, since_61: bool, source: &'static str) -> DriverRow {
    DriverRow { name, effect, since_61, source }
}

/// The drivers with native XDP, by name.
#[rustfmt::skip]
pub const ROWS: [DriverRow; 47] = [
    row("am65-cpsw-nuss", LinkDown, false,
        "ethernet/ti/am65-cpsw-nuss.c: am65_cpsw_xdp_prog_setup, am65_cpsw_nuss_ndo_slave_stop"),
    row("atlantic", LinkDown, true,
        "ethernet/aquantia/atlantic/aq_main.c: aq_xdp_setup, aq_ndev_close; aq_nic.c: aq_nic_stop"),
    row("bnxt_en", LinkDown, true,
        "ethernet/broadcom/bnxt/bnxt_xdp.c: bnxt_xdp_set; bnxt.c: bnxt_close_nic, bnxt_tx_disable"),
    row("bonding", PassedOn, true, "bonding/bond_main.c: bond_xdp_set"),
    row("cpsw", Nothing, true, "ethernet/ti/cpsw_priv.c: cpsw_xdp_prog_setup"),
    row("cpsw-switch", Nothing, true, "ethernet/ti/cpsw_priv.c: cpsw_xdp_prog_setup"),
    row("ena", LinkDown, true, "ethernet/amazon/ena/ena_xdp.c: ena_xdp_set; ena_netdev.c: ena_down"),
    row("fbnic", Nothing, false, "ethernet/meta/fbnic/fbnic_netdev.c: fbnic_bpf"),
    row("fec", QueuesAnew, false, "ethernet/freescale/fec_main.c: fec_enet_bpf, fec_restart"),
    row("fsl_dpa", LinkDown, true, "ethernet/freescale/dpaa/dpaa_eth.c: dpaa_setup_xdp, dpaa_stop"),
    row("fsl_dpaa2_eth", LinkDown, true,
        "ethernet/freescale/dpaa2/dpaa2-eth.c: dpaa2_eth_setup_xdp, dpaa2_eth_stop"),
    row("fsl_enetc", LinkDown, true,
        "ethernet/freescale/enetc/enetc.c: enetc_setup_xdp_prog, enetc_reconfigure, enetc_stop"),
    row("funeth", Nothing, true,
        "ethernet/fungible/funeth/funeth_main.c: fun_xdp_setup, fun_enter_xdp; funeth_rx.c: fun_rxq_set_bpf"),
    row("gve", LinkDown, false, "ethernet/google/gve/gve_main.c: gve_set_xdp, gve_turndown"),
    row("hv_netvsc", PassedOn, true, "hyperv/netvsc_bpf.c: netvsc_bpf, netvsc_vf_setxdp"),
    row("i40e", LinkDown, true,
        "ethernet/intel/i40e/i40e_main.c: i40e_xdp_setup, i40e_prep_for_reset, i40e_down"),
    row("ice", LinkDown, true, "ethernet/intel/ice/ice_main.c: ice_xdp_setup_prog, ice_down"),
    row("idpf", LinkDown, false,
        "ethernet/intel/idpf/xdp.c: idpf_xdp_setup_prog; idpf_lib.c: idpf_initiate_soft_reset, idpf_vport_stop"),
    row("igb", LinkDown, true, "ethernet/intel/igb/igb_main.c: igb_xdp_setup, igb_down"),
    row("igc", LinkDown, true,
        "ethernet/intel/igc/igc_xdp.c: igc_xdp_set_prog; igc_main.c: igc_down"),
    row("ionic", QueuesAnew, false,
        "ethernet/pensando/ionic/ionic_lif.c: ionic_xdp_config, ionic_reconfigure_queues"),
    row("ixgbe", LinkDown, true,
        "ethernet/intel/ixgbe/ixgbe_main.c: ixgbe_xdp_setup, ixgbe_setup_tc, ixgbe_down"),
    row("ixgbevf", LinkDown, true,
        "ethernet/intel/ixgbevf/ixgbevf_main.c: ixgbevf_xdp_setup, ixgbevf_down"),
    row("lan966x-switch", QueuesAnew, false,
        "ethernet/microchip/lan966x/lan966x_xdp.c: lan966x_xdp_setup; lan966x_fdma.c: lan966x_fdma_reload"),
    row("mana", LinkDown, true,
        "ethernet/microsoft/mana/mana_bpf.c: mana_xdp_set; mana_en.c: mana_detach"),
    row("mlx4_en", LinkDown, true,
        "ethernet/mellanox/mlx4/en_netdev.c: mlx4_xdp_set, mlx4_en_stop_port"),
    row("mlx5_core", LinkDown, true,
        "ethernet/mellanox/mlx5/core/en_main.c: mlx5e_xdp_set, mlx5e_switch_priv_channels"),
    row("mtk_soc_eth", LinkDown, true, "ethernet/mediatek/mtk_eth_soc.c: mtk_xdp_setup, mtk_stop"),
    row("mvneta", LinkDown, true, "ethernet/marvell/mvneta.c: mvneta_xdp_setup, mvneta_stop_dev"),
    row("mvpp2", LinkDown, true,
        "ethernet/marvell/mvpp2/mvpp2_main.c: mvpp2_xdp_setup, mvpp2_stop_dev"),
    row("netsec", LinkDown, true, "ethernet/socionext/netsec.c: netsec_xdp_setup, netsec_netdev_stop"),
    row("nfp", LinkDown, true,
        "ethernet/netronome/nfp/nfp_net_common.c: nfp_net_xdp_setup_drv, nfp_net_close_stack"),
    row("nfp_netvf", LinkDown, true,
        "ethernet/netronome/nfp/nfp_net_common.c: nfp_net_xdp_setup_drv, nfp_net_close_stack"),
    row("nicvf", LinkDown, true, "ethernet/cavium/thunder/nicvf_main.c: nicvf_xdp_setup, nicvf_stop"),
    row("qede", LinkDown, true,
        "ethernet/qlogic/qede/qede_filter.c: qede_xdp_set; qede_main.c: qede_reload, qede_unload"),
    row("rvu-nicpf", LinkDown, true,
        "ethernet/marvell/octeontx2/nic/otx2_pf.c: otx2_xdp_setup, otx2_stop"),
    row("sfc", Nothing, true, "ethernet/sfc/efx.c: efx_xdp_setup_prog"),
    row("sfc_siena", Nothing, true, "ethernet/sfc/siena/efx.c: efx_xdp_setup_prog"),
    row("st_gmac", LinkDown, true, STMMAC),
    row("st_mac100", LinkDown, true, STMMAC),
    row("st_xgmac", LinkDown, true, STMMAC),
    row("tsnep", Nothing, false, "ethernet/engleder/tsnep_xdp.c: tsnep_xdp_setup_prog"),
    row("tun", Nothing, true, "tun.c: tun_xdp_set"),
    row("veth", OffloadsOff, true, "veth.c: veth_xdp_set"),
    row("vif", MayNotRun, true, "xen-netfront.c: xennet_xdp_set"),
    row("virtio_net", OffloadsOff, true,
        "virtio_net.c: virtnet_xdp_set, virtnet_clear_guest_offloads"),
    row("vmxnet3", LinkDown, false,
        "vmxnet3/vmxnet3_xdp.c: vmxnet3_xdp_set; vmxnet3_drv.c: vmxnet3_quiesce_dev"),
];

/// stmmac names itself after its hardware.
const STMMAC: &str =
    "ethernet/stmicro/stmmac/stmmac_xdp.c: stmmac_xdp_set_prog; stmmac_main.c: stmmac_xdp_release";

/// The row of an interface's driver.
pub fn row_of(info: &InterfaceInfo) -> Option<&'static DriverRow> {
    let name = info.driver.as_deref()?;
    ROWS.iter().find(|row| row.name == name)
}

/// What native XDP does to an interface; `None` if it has none, by the kernel's report, or by its driver's
/// row on kernels without that report (before 6.3).
pub fn native_effect(info: &InterfaceInfo) -> Option<NativeEffect> {
    let row = row_of(info);
    let has_native = info.native_xdp().unwrap_or_else(|| row.is_some_and(|row| row.since_61));
    (has_native && !info.raw).then(|| effect(info))
}

/// What native XDP would do to an interface, whether it has it or not. A software device without a row has no
/// queues in hardware.
pub fn effect(info: &InterfaceInfo) -> NativeEffect {
    match row_of(info) {
        Some(row) => row.effect,
        None if info.is_virtual => Nothing,
        None => NativeEffect::Unknown,
    }
}

/// The interface, and its driver if it has one: `eth0 (ice)`.
pub fn with_driver(info: &InterfaceInfo) -> String {
    match &info.driver {
        Some(driver) => format!("{} ({driver})", info.name),
        None => info.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const DOCUMENTED: &str = include_str!("../../../docs/drivers.md");
    const MEASURED: &str = include_str!("../../../docs/performance.md");

    fn hardware(driver: Option<&str>, xdp_features: Option<u64>) -> InterfaceInfo {
        InterfaceInfo { driver: driver.map(Into::into), xdp_features, ..InterfaceInfo::default() }
    }

    /// The rows are found by name, and `ETHTOOL_GDRVINFO` has 32 bytes for it, the last of them 0.
    #[test]
    fn each_driver_has_one_row() {
        for pair in ROWS.windows(2) {
            assert!(pair[0].name < pair[1].name, "{} before {}", pair[0].name, pair[1].name);
        }
        for row in ROWS {
            assert!(row.name.len() < 32, "{}", row.name);
            assert!(row.source.contains(".c: "), "{}: no file and function", row.name);
            assert_ne!(row.effect, NativeEffect::Unknown, "{}", row.name);
        }
    }

    #[test]
    fn effects_by_interface() {
        let software = |info| InterfaceInfo { is_virtual: true, ..info };
        let raw = |info| InterfaceInfo { raw: true, ..info };
        let table = [
            ("the kernel says yes", hardware(Some("ice"), Some(1)), Some(LinkDown)),
            ("the kernel says no", hardware(Some("ice"), Some(0)), None),
            ("6.1 has it", hardware(Some("ice"), None), Some(LinkDown)),
            ("6.1 has it not", hardware(Some("gve"), None), None),
            ("no row", hardware(Some("new"), Some(1)), Some(NativeEffect::Unknown)),
            ("no row, 6.1", hardware(Some("new"), None), None),
            ("no driver", hardware(None, Some(1)), Some(NativeEffect::Unknown)),
            ("no Ethernet header", raw(hardware(Some("ice"), Some(1))), None),
            ("software", software(hardware(Some("new"), Some(1))), Some(Nothing)),
            ("software with a row", software(hardware(Some("bonding"), Some(1))), Some(PassedOn)),
        ];
        for (name, info, expected) in table {
            assert_eq!(native_effect(&info), expected, "{name}");
        }
    }

    /// docs/drivers.md has exactly these effects and drivers.
    #[test]
    fn documented() {
        let yes_no = |yes| if yes { "yes" } else { "no" };
        let effects = NativeEffect::ALL.map(|effect| {
            let auto = if effect.suits_auto() { "native XDP" } else { "TC" };
            format!("| {} | {} | {auto} |", effect.name(), effect.sentence())
        });
        let drivers = ROWS.map(|row| {
            format!("| `{}` | {} | {} | {} |", row.name, row.effect.name(), yes_no(row.since_61), row.source)
        });
        let expected: BTreeSet<&str> = effects.iter().chain(&drivers).map(String::as_str).collect();
        let documented: BTreeSet<&str> = DOCUMENTED
            .lines()
            .filter(|line| line.starts_with("| ") && !line.contains("`--hook auto` takes"))
            .filter(|line| !line.starts_with("| driver |"))
            .collect();
        let odd: Vec<_> = documented.symmetric_difference(&expected).collect();
        assert!(odd.is_empty(), "not in both: {odd:#?}");
    }

    /// The share is that of the two rows of docs/performance.md.
    #[test]
    fn measured() {
        let net = |row: &str| -> f64 {
            let line = MEASURED.lines().find(|line| line.starts_with(&format!("| `{row}`"))).expect(row);
            let cell = line.split('|').nth(3).expect("the third column is the net time");
            cell.split_whitespace().next().and_then(|number| number.parse().ok()).expect(cell)
        };
        let percent = 100.0 * (1.0 - net("tcp4_hot") / net("tcp4_hot_tc"));
        assert!((percent - f64::from(NATIVE_SAVES_PERCENT)).abs() < 0.5, "{percent}");
    }
}
