package vmm

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

const (
	maxBoots     = 20 // kept with a VM
	maxStages    = 40 // of one boot: a guest cannot make a record grow
	maxStageName = 120
)

// beginBoot starts the account of a boot.
func (r *record) beginBoot(at time.Time) {
	b := vmmapi.Boot{Number: r.VM.Boots, Image: r.VM.Spec.Image, StartedAt: at, Stages: []vmmapi.Stage{}}
	if doc, err := appcompose.Parse(r.VM.Spec.App.AppCompose); err == nil {
		b.ComposeHash = doc.Hash()
	}
	// A copy: answers that were given before hold the old slice.
	r.History = append(append([]vmmapi.Boot(nil), r.History[max(0, len(r.History)-maxBoots+1):]...), b)
}

// editBoot changes the newest boot on a copy.
func (r *record) editBoot(fn func(b *vmmapi.Boot)) {
	if len(r.History) == 0 {
		return
	}
	h := append([]vmmapi.Boot(nil), r.History...)
	b := &h[len(h)-1]
	b.Stages = append([]vmmapi.Stage(nil), b.Stages...)
	fn(b)
	r.History = h
}

// noteStage keeps one boot.progress ("3/10 requesting keys", the beginning of a
// stage) or EventStage (JSON, its end with the guest's own measure).
func (r *record) noteStage(event, payload string, at time.Time) {
	r.editBoot(func(b *vmmapi.Boot) {
		var n guestapi.Stage
		if event == guestapi.EventStage {
			if json.Unmarshal([]byte(payload), &n) == nil && n.DurationMS >= 0 {
				b.Stages = measured(b.Stages, n, at.Sub(b.StartedAt).Seconds())
			}
			return
		}
		number, _, _ := strings.Cut(payload, " ")
		if l := len(b.Stages); l > 0 && strings.Contains(number, "/") && strings.HasPrefix(b.Stages[l-1].Name, number+" ") {
			return // the same stage says how far it is
		}
		closeStage(b, at)
		if len(b.Stages) < maxStages {
			b.Stages = append(b.Stages, vmmapi.Stage{Name: cut(payload, maxStageName), At: at.Sub(b.StartedAt).Seconds()})
		}
	})
}

// measured puts the guest's own figure to the stage of that number, or adds one.
func measured(stages []vmmapi.Stage, n guestapi.Stage, at float64) []vmmapi.Stage {
	name, took := cut(orWord(n.Name, n.Stage), maxStageName), n.DurationMS/1000
	for i := range stages {
		if s := &stages[i]; !s.Measured && n.Number > 0 && strings.HasPrefix(s.Name, fmt.Sprintf("%d/", n.Number)) {
			s.Duration, s.Measured = took, true
			return stages
		}
	}
	if len(stages) < maxStages {
		stages = append(stages, vmmapi.Stage{Name: name, At: max(0, at-took), Duration: took, Measured: true})
	}
	return stages
}

func closeStage(b *vmmapi.Boot, at time.Time) {
	if l := len(b.Stages); l > 0 && !b.Stages[l-1].Measured && b.Stages[l-1].Duration == 0 {
		b.Stages[l-1].Duration = max(0, at.Sub(b.StartedAt).Seconds()-b.Stages[l-1].At)
	}
}

func (r *record) bootReady(at time.Time) {
	r.editBoot(func(b *vmmapi.Boot) {
		closeStage(b, at)
		b.ReadyAt = at
	})
}

func (r *record) bootFailed(e *vmmapi.VMError) {
	r.editBoot(func(b *vmmapi.Boot) { b.Error = e })
}

func (r *record) endBoot(x machine.Exit, at time.Time) {
	r.editBoot(func(b *vmmapi.Boot) {
		if b.ReadyAt.IsZero() {
			closeStage(b, at)
		}
		b.EndedAt = at
		switch {
		case x.OOMKilled:
			b.Exit = "out of memory"
		case x.Requested:
			b.Exit = "stopped"
		default:
			b.Exit = orWord(x.Detail, fmt.Sprintf("exit code %d", x.Code))
		}
	})
}

// boots of a VM, oldest first.
func (m *VMM) boots(id string) ([]vmmapi.Boot, error) {
	v, err := m.find(id)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]vmmapi.Boot{}, v.rec.History...), nil
}

// cut bounds a text to n bytes without breaking a letter.
func cut(s string, n int) string {
	for len(s) > n {
		_, size := utf8.DecodeLastRuneInString(s[:n+1])
		s = s[:n+1-size]
	}
	return s
}
