package machine

// Channels of a machine's output.
const (
	ChannelSerial = "serial" // what the guest writes to its console
	ChannelStdout = "stdout" // of the hypervisor
	ChannelStderr = "stderr"
)

// LogFiler is an Instance whose output is in files that something else appends to
// (O_APPEND, so that they can be cut from behind). The VMM then keeps, cuts and
// serves them (vmm/logs), and Console is not asked. The files lie in a directory of
// the VM that outlives a run; Remove of the driver deletes that directory.
type LogFiler interface {
	// LogFile is the path of a channel's file, "" if the machine has no such channel.
	LogFile(channel string) string
}
