package vmm

import (
	"context"
	"fmt"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// guestPrepare has the running guest pull what another app-compose needs. nil as
// well from a guest that does not know how: the next boot pulls.
func (m *VMM) guestPrepare(ctx context.Context, inst machine.Instance, compose []byte, progress func(string)) error {
	g := guestapi.NewClientOver(guestClient(inst))
	err := g.Prepare(ctx, string(compose), func(p guestapi.PullProgress) { progress(describePull(p)) })
	switch cvm.CodeOf(err) {
	case cvm.NotFound, cvm.Unsupported:
		return nil
	}
	return err
}

// describePull is a line for people; the guest's words are cut.
func describePull(p guestapi.PullProgress) string {
	s := cut(p.State, 64)
	if p.Image != "" {
		s += " " + cut(p.Image, 128)
	}
	if p.Total > 0 {
		s += fmt.Sprintf(" %d of %d MB", p.Done/1e6, p.Total/1e6)
	}
	return s
}
