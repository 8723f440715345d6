//! The system calls that somebody else's program has no use for, refused by the kernel: what systemd's `@system-service` leaves out, new
//! namespaces, keys, and other processes' memory. Written by hand, because what the program may call by the numbers of another
//! architecture, and what later kernels add, must be refused too, and the libraries for such filters say nothing of ranges of numbers.

use std::io;

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JGT, BPF_JMP, BPF_JSET, BPF_JUMP, BPF_K, BPF_LD, BPF_RET, BPF_STMT, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, c_long, sock_filter,
};

/// What this program is built for, by its number in ELF: 64 bits, the least significant byte first. Calls as for another one end it.
const ARCHITECTURE: u32 =
    0xC000_0000 | if cfg!(target_arch = "aarch64") { libc::EM_AARCH64 } else { libc::EM_X86_64 } as u32;
/// The last number that is known to be harmless or is in the list: `mseal`.
const LAST: c_long = 462;

const REFUSED: &[c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
];

/// A `clone` with one of these makes a namespace.
const NAMESPACES: i32 = libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWUTS;

/// The program that the kernel runs at each system call.
#[derive(Clone, Debug)]
pub(super) struct Filter(Vec<sock_filter>);

impl Filter {
    #[allow(unsafe_code)]
    pub fn new() -> Self {
        /// In the kernel's `seccomp_data`: the number, the architecture, the lower half of the first argument.
        const NUMBER: u32 = 0;
        const KIND: u32 = 4;
        const FIRST: u32 = 16;
        // SAFETY: they put together their arguments.
        let (load, when, end) = unsafe {
            (
                |offset| BPF_STMT(code(BPF_LD | BPF_W | BPF_ABS), offset),
                |test, value, yes, no| BPF_JUMP(code(BPF_JMP | test | BPF_K), value, yes, no),
                |what| BPF_STMT(code(BPF_RET | BPF_K), what),
            )
        };
        let refused = |error: i32| end(SECCOMP_RET_ERRNO | error.cast_unsigned());
        let is = |number: c_long, no| when(BPF_JEQ, u32::try_from(number).unwrap_or(u32::MAX), 0, no);

        let mut program =
            vec![load(KIND), when(BPF_JEQ, ARCHITECTURE, 1, 0), end(SECCOMP_RET_KILL_PROCESS), load(NUMBER)];
        // Later than this, or by the numbers of x32.
        program.extend([when(BPF_JGT, u32::try_from(LAST).unwrap_or(0), 0, 1), refused(libc::ENOSYS)]);
        // Its flags lie in memory, where the program could change them; the C library takes `clone` instead.
        program.extend([is(libc::SYS_clone3, 1), refused(libc::ENOSYS)]);
        for number in REFUSED {
            program.extend([is(*number, 1), refused(libc::EPERM)]);
        }
        program.extend([is(libc::SYS_clone, 3), load(FIRST)]);
        program.extend([when(BPF_JSET, NAMESPACES.cast_unsigned(), 0, 1), refused(libc::EPERM)]);
        program.push(end(SECCOMP_RET_ALLOW));
        Self(program)
    }

    /// Between fork and exec, of a process that can gain no privileges: makes a system call and nothing else.
    #[allow(unsafe_code)]
    pub fn apply(&mut self) -> io::Result<()> {
        let length = u16::try_from(self.0.len()).unwrap_or(u16::MAX);
        let program = libc::sock_fprog { len: length, filter: self.0.as_mut_ptr() };
        // SAFETY: the program lives until the kernel has copied it.
        match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// As the kernel's structure has it.
fn code(bits: u32) -> u16 {
    u16::try_from(bits).unwrap_or_default()
}
