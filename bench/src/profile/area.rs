//! Where a stack belongs: a part of the kernel, of the engine, of a library.

use super::script::Frame;

/// Where a worker of io_uring's waits for work.
const IDLE_WORKER: &str = "io_wq_worker";

/// Words for what no rule knows.
const REST: &str = "other";

/// Parts of the kernel, by the beginnings of the names of their functions. Of a stack's functions the innermost that
/// has a part decides, so that helpers count for who called them.
const KERNEL: &[(&str, &[&str])] = &[
    ("perf itself", &["perf_"]),
    (
        "memory copy",
        &[
            "copy_from_iter",
            "copy_to_iter",
            "copy_user",
            "copy_page",
            "copy_folio",
            "copy_mc",
            "copy_from_user",
            "copy_to_user",
            "raw_copy",
            "rep_movs",
            "memcpy",
            "memmove",
        ],
    ),
    (
        "memory",
        &[
            "clear_page",
            "clear_huge",
            "folio_zero",
            "get_page_from",
            "alloc_page",
            "alloc_frozen",
            "free_frozen",
            "rmqueue",
            "do_anonymous",
            "handle_mm_fault",
            "exc_page_fault",
            "asm_exc_page_fault",
            "do_user_addr_fault",
            "kmem_cache",
            "kmalloc",
            "kfree",
            "do_mmap",
            "unmap_",
            "zap_",
            "tlb_",
            "flush_tlb",
            "pin_user",
            "gup_",
            "unpin_",
            "mem_cgroup",
            "try_charge",
            "do_madvise",
            "vm_mmap",
            "do_vmi",
            "mprotect",
            "vma_",
        ],
    ),
    (
        "scheduler",
        &[
            "schedule",
            "io_schedule",
            "try_to_wake",
            "ttwu",
            "wake_up",
            "finish_task",
            "pick_",
            "put_prev",
            "set_next",
            "enqueue_",
            "dequeue_",
            "update_curr",
            "update_rq",
            "update_load",
            "select_task",
            "sched_",
            "switch_",
            "prepare_task",
            "load_balance",
            "newidle",
            "resched",
            "psi_",
            "default_wake",
            "autoremove_wake",
            "preempt",
            "cond_resched",
            "swake_",
            "complete_all",
        ],
    ),
    (
        "futex and eventfd",
        &["futex", "do_futex", "eventfd", "ep_", "do_epoll", "epoll", "do_poll", "do_sys_poll"],
    ),
    ("io_uring", &["io_"]),
    (
        "block",
        &[
            "blk",
            "bio_",
            "submit_bio",
            "nvme",
            "virtblk",
            "virtqueue",
            "virtio",
            "scsi",
            "sbitmap",
            "elv_",
            "dd_",
            "rq_qos",
            "wbt_",
            "vring",
            "vp_",
            "dm_",
            "md_",
            "loop_",
            "block_",
        ],
    ),
    ("ext4", &["ext4", "jbd2", "start_this_handle"]),
    ("xfs", &["xfs"]),
    ("btrfs", &["btrfs"]),
    (
        "page cache",
        &[
            "filemap",
            "folio",
            "generic_perform_write",
            "generic_file",
            "balance_dirty",
            "xas_",
            "writeback",
            "wb_",
            "truncate_",
            "lru_",
            "mark_buffer",
            "page_cache",
            "read_pages",
            "grab_cache",
            "fault_in",
        ],
    ),
    (
        "network",
        &[
            "tcp",
            "ip_",
            "inet",
            "sock",
            "skb",
            "unix_",
            "net_",
            "dev_",
            "napi",
            "loopback",
            "nf_",
            "splice",
            "do_sendfile",
            "sendfile",
        ],
    ),
    (
        "file system",
        &[
            "iomap",
            "dio_",
            "vfs_",
            "file_",
            "inode",
            "do_fsync",
            "ksys_",
            "fput",
            "fget",
            "do_sys_open",
            "path_",
            "link_path",
            "new_sync",
        ],
    ),
    (
        "timers and interrupts",
        &[
            "hrtimer",
            "tick_",
            "ktime",
            "timekeeping",
            "run_timer",
            "irq",
            "handle_irq",
            "handle_softirq",
            "do_softirq",
            "common_interrupt",
            "asm_common",
            "sysvec",
            "asm_sysvec",
            "handle_edge",
            "local_bh",
        ],
    ),
    (
        "process start and end",
        &["do_exit", "do_group_exit", "copy_process", "kernel_clone", "ret_from_fork"],
    ),
    (
        "system call",
        &[
            "entry_SYSCALL",
            "do_syscall",
            "syscall",
            "exit_to_user",
            "x64_sys",
            "se_sys",
            "arm64_sys",
            "el0",
        ],
    ),
];

/// Libraries that are an area of their own, by what the names of their functions hold.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("CRC", &["crc_fast", "crc32", "crc::"]),
    ("compression", &["zstd", "ZSTD", "HUF_", "FSE_", "lz4", "LZ4", "snap::", "flate2", "miniz"]),
    ("histograms", &["hdrhistogram"]),
];

/// Beginnings of the names of libc's functions that move bytes.
const COPIES: &[&str] = &["memmove", "memcpy", "memset", "memcmp", "mempcpy"];

const ALLOCATOR: &[&str] = &[
    "malloc",
    "free",
    "calloc",
    "realloc",
    "cfree",
    "int_malloc",
    "int_free",
    "sysmalloc",
    "unlink_chunk",
    "rust_alloc",
    "rust_dealloc",
    "libc_malloc",
    "rdl_",
    "posix_memalign",
    "int_memalign",
];

/// A part of all the code that runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Area {
    /// Whether it is the kernel's.
    pub kernel: bool,
    /// Its name.
    pub name: String,
}

impl Area {
    fn of_user(name: impl Into<String>) -> Self {
        Self { kernel: false, name: name.into() }
    }

    /// Where a stack, innermost frame first, spends its time.
    pub fn of(frames: &[Frame]) -> Self {
        if frames.first().is_some_and(|leaf| leaf.kernel) {
            let name = frames.iter().take_while(|f| f.kernel).find_map(|f| kernel(&f.symbol));
            return Self { kernel: true, name: name.unwrap_or(REST).to_owned() };
        }
        let Some(leaf) = frames.first() else { return Self::of_user(REST) };
        let plain = leaf.symbol.trim_start_matches('_');
        if COPIES.iter().any(|name| plain.starts_with(name)) {
            return Self::of_user("memory copy");
        }
        if ALLOCATOR.iter().any(|name| plain.starts_with(name)) {
            return Self::of_user("allocator");
        }
        if leaf.object == "[vdso]" {
            return Self::of_user("clock");
        }
        let name = frames.iter().find_map(|frame| library(&frame.symbol).or_else(|| owner(frame)));
        Self::of_user(name.unwrap_or_else(|| krate(leaf)))
    }

    /// What a stack waits for: its innermost part of the kernel that is not the scheduler.
    pub fn of_wait(frames: &[Frame]) -> Self {
        let parts = frames.iter().take_while(|frame| frame.kernel);
        let mut parts = parts.filter_map(|frame| Some((kernel(&frame.symbol)?, frame)));
        let name = match parts.find(|(name, _)| !["scheduler", "perf itself"].contains(name)) {
            Some((_, frame)) if frame.symbol == IDLE_WORKER => "nothing to do (io-wq)",
            Some((name, _)) => name,
            None => REST,
        };
        Self { kernel: true, name: name.to_owned() }
    }
}

fn kernel(symbol: &str) -> Option<&'static str> {
    let plain = symbol.trim_start_matches('_');
    let of = |(name, beginnings): &'static (&'static str, &[&str])| {
        beginnings.iter().any(|beginning| plain.starts_with(beginning)).then_some(*name)
    };
    KERNEL.iter().find_map(of)
}

fn library(symbol: &str) -> Option<String> {
    let named = LIBRARIES.iter().find(|(_, parts)| parts.iter().any(|part| symbol.contains(part)));
    named.map(|(name, _)| (*name).to_owned())
}

/// The engine by its module, the harness as a whole: it is the load.
fn owner(frame: &Frame) -> Option<String> {
    let path = frame.symbol.trim_start_matches(['<', '&', '(']);
    match path.strip_prefix("ringmain::") {
        Some(rest) => {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            Some(format!("engine: {}", &rest[..end.unwrap_or(rest.len())]))
        }
        None if path.starts_with("ringmain_bench::") => Some("load generator".to_owned()),
        None => None,
    }
}

/// The crate a function is of; of one that is not Rust's, the library.
pub fn krate(frame: &Frame) -> String {
    if frame.kernel {
        return "kernel".to_owned();
    }
    let path = frame.symbol.trim_start_matches(['<', '&', '(', '*']);
    let path = path.trim_start_matches("mut ").trim_start_matches("dyn ");
    match path.split_once("::") {
        Some((name, _)) if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => {
            name.to_owned()
        }
        _ if library(&frame.symbol).is_some() => "C".to_owned(),
        _ => frame.object.split(".so").next().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(symbols: &[(&str, &str)]) -> Vec<Frame> {
        let frame = |&(symbol, object): &(&str, &str)| Frame {
            symbol: symbol.to_owned(),
            object: object.to_owned(),
            kernel: object == "k",
        };
        symbols.iter().map(frame).collect()
    }

    #[test]
    fn a_stack_belongs_to_its_innermost_part_that_has_a_name() {
        let turn = ("ringmain::shard::Shard<R,C>::turn", "bench");
        let cases: [(&[(&str, &str)], bool, &str); 9] = [
            (
                &[
                    ("_raw_spin_unlock_irqrestore", "k"),
                    ("nvme_queue_rq", "k"),
                    ("io_write", "k"),
                    turn,
                ],
                true,
                "block",
            ),
            (&[("clear_page_erms", "k"), ("folio_zero_user", "k"), turn], true, "memory"),
            (&[("_copy_from_iter", "k"), ("tcp_sendmsg", "k"), turn], true, "memory copy"),
            (&[("__schedule", "k"), ("io_cqring_wait", "k"), turn], true, "scheduler"),
            (&[("unheard_of", "k"), turn], true, "other"),
            (&[("__memmove_avx512_unaligned_erms", "libc.so.6"), turn], false, "memory copy"),
            (&[("core::fmt::write", "bench"), turn], false, "engine: shard"),
            (
                &[("<ringmain::ring::uring::Uring as ringmain::ring::Ring>::enter", "bench")],
                false,
                "engine: ring",
            ),
            (&[("crc_fast::arch::x86_64::update", "bench"), turn], false, "CRC"),
        ];
        for (symbols, kernel, name) in cases {
            let area = Area::of(&stack(symbols));
            assert_eq!((area.kernel, area.name.as_str()), (kernel, name), "{symbols:?}");
        }
        let waits = [("schedule", "k"), ("io_cqring_wait", "k"), ("do_syscall_64", "k"), turn];
        assert_eq!(Area::of_wait(&stack(&waits)).name, "io_uring");
        let idle = [("schedule_timeout", "k"), ("io_wq_worker", "k"), ("ret_from_fork", "k")];
        assert_eq!(Area::of_wait(&stack(&idle)).name, "nothing to do (io-wq)");
    }

    #[test]
    fn crates_are_read_from_symbols() {
        let names = [
            ("<alloc::vec::Vec<T> as core::fmt::Debug>::fmt", "bench", "alloc"),
            ("<&mut W as core::fmt::Write>::write_str", "bench", "bench"),
            ("ZSTD_compressBlock_fast", "bench", "C"),
            ("__GI___libc_open", "libc.so.6", "libc"),
            ("io_write", "k", "kernel"),
        ];
        for (symbol, object, name) in names {
            assert_eq!(krate(&stack(&[(symbol, object)])[0]), name, "{symbol}");
        }
    }
}
