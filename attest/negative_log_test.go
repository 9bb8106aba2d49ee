package attest_test

import (
	"bytes"
	"slices"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/eventlog"
)

func logRefusals() []refusal {
	events := func(fn func([]eventlog.Runtime) []eventlog.Runtime) func(*scene) {
		return func(s *scene) { s.boot.Phase = claim.PhaseRunning; s.events = fn }
	}
	anyPhase := func(s *scene) {
		s.policy.Phases = []claim.Phase{claim.PhaseRelease, claim.PhaseBooting, claim.PhaseRunning}
	}
	insert := func(at int, e eventlog.Runtime) func(*scene) {
		return events(func(l []eventlog.Runtime) []eventlog.Runtime { return slices.Insert(l, at, e) })
	}
	drop := func(name string) func(*scene) {
		return events(func(l []eventlog.Runtime) []eventlog.Runtime {
			return slices.DeleteFunc(l, func(e eventlog.Runtime) bool { return e.Name == name })
		})
	}
	identity := []string{claim.EventlogIdentity}
	app, compose := ev(eventlog.AppID, make([]byte, 20)...), ev(eventlog.ComposeHash, make([]byte, 32)...)
	return []refusal{
		{"41 payload flipped in both copies", nil, func(s *scene) {
			s.ev.RuntimeEvents[1].Payload = append([]byte{1}, s.ev.RuntimeEvents[1].Payload[1:]...)
			s.ev.EventLog[4] = s.ev.RuntimeEvents[1].Event()
		}, true, []string{claim.EventlogReplay}},
		{"41 event dropped", nil, func(s *scene) { s.ev.RuntimeEvents = s.ev.RuntimeEvents[:5] }, true, []string{claim.EventlogReplay, claim.EventlogAgrees}},
		{"41 boot log does not replay", nil, func(s *scene) { s.ev.EventLog[0].Digest[0]++ }, true, []string{claim.EventlogBoot}},
		{"41 RTMR1 of the boot log does not replay", nil, func(s *scene) { s.ev.EventLog[1].Digest[0]++ }, true, []string{claim.EventlogBoot}},
		{"41 RTMR2 of the boot log does not replay", nil, func(s *scene) { s.ev.EventLog[2].Digest[0]++ }, true, []string{claim.EventlogBoot}},
		{"41 RTMR0 is not the reference", body(func(b []byte) { b[328] ^= 1 }), nil, true, []string{claim.EventlogBoot, claim.ImageMeasurement}},
		{"41 RTMR1 is not the reference", body(func(b []byte) { b[328+48] ^= 1 }), nil, true, []string{claim.EventlogBoot, claim.ImageMeasurement}},
		{"41 RTMR2 is not the reference", body(func(b []byte) { b[328+96] ^= 1 }), nil, true, []string{claim.EventlogBoot, claim.ImageMeasurement}},
		{"41 RTMR3 is not the log", body(func(b []byte) { b[328+144] ^= 1 }), nil, true, []string{claim.EventlogReplay}},
		{"41 MRTD is not the reference", body(func(b []byte) { b[136] ^= 1 }), nil, true, []string{claim.ImageMeasurement}},
		{"42 digest disagrees with payload", nil, func(s *scene) { s.ev.EventLog[4].Digest = make([]byte, 48) }, true, []string{claim.EventlogAgrees}},
		{"42 the two copies differ", nil, func(s *scene) { s.ev.EventLog[4].Payload = make([]byte, 20) }, true, []string{claim.EventlogAgrees}},
		{"43 app-id twice", insert(3, app), anyPhase, true, identity},
		{"43 compose-hash twice", insert(3, compose), anyPhase, true, identity},
		{"43 key-provider twice", insert(7, ev(eventlog.KeyProvider, '{', '}')), anyPhase, true, identity},
		{"44 compose-hash after boot-mr-done", insert(6, compose), anyPhase, true, identity},
		{"44 app-id after system-ready", insert(9, app), anyPhase, true, identity},
		{"44 os-image-hash after system-ready", insert(9, ev(eventlog.OSImageHash, make([]byte, 32)...)), anyPhase, true, identity},
		{"45 no boot-mr-done", drop(eventlog.BootMRDone), anyPhase, true, identity},
		{"45 boot-mr-done twice", insert(6, ev(eventlog.BootMRDone)), anyPhase, true, identity},
		{"45 system-ready twice", insert(9, ev(eventlog.SystemReady)), anyPhase, true, identity},
		{"45 no system-ready is not running", func(s *scene) { s.boot.Phase = claim.PhaseBooting }, func(s *scene) { s.policy.Phases = []claim.Phase{claim.PhaseRunning} }, true, []string{claim.PhaseCheck}},
		{"46 reordered", events(func(l []eventlog.Runtime) []eventlog.Runtime { l[3], l[4] = l[4], l[3]; return l }), anyPhase, true, identity},
		{"47 runtime event in RTMR2", nil, func(s *scene) { s.ev.EventLog[4].IMR = 2 }, true, []string{claim.EventlogAgrees, claim.EventlogBoot}},
		{"47 other type in RTMR3", nil, func(s *scene) { s.ev.EventLog[4].Type = 1 }, true, []string{claim.EventlogAgrees}},
		{"48 name with a colon", nil, func(s *scene) {
			e := &s.ev.RuntimeEvents[1]
			e.Name, e.Payload = e.Name+":"+string(e.Payload[:2]), e.Payload[3:]
		}, true, []string{claim.EventlogAgrees, claim.EventlogReplay}},
		{"48 preimage that is not canonical", func(s *scene) { s.boot.Version = 2 }, func(s *scene) {
			p := s.ev.EventLog[4].Preimage
			s.ev.EventLog[4].Preimage = append([]byte{' '}, p...)
		}, true, []string{claim.EventlogAgrees}},
		{"48 preimage of a V1 event", nil, func(s *scene) { s.ev.EventLog[4].Preimage = s.ev.RuntimeEvents[1].Preimage() }, true, []string{claim.EventlogAgrees}},
		{"48 digest version of the two copies differs", nil, func(s *scene) { s.ev.EventLog[4].Version = 2 }, true, []string{claim.EventlogAgrees}},
		{"48 unknown digest version", nil, func(s *scene) { s.ev.RuntimeEvents[1].Version = 3 }, true, []string{claim.EventlogAgrees, claim.EventlogReplay}},
		{"49 unknown event before system-ready", insert(3, ev("surprise")), anyPhase, true, identity},
		{"50 payload of the wrong size", insert(3, ev(eventlog.InitScriptHash, 1)), anyPhase, true, identity},
		{"45 running app offered as a boot", func(s *scene) { s.boot.Phase = claim.PhaseRunning }, nil, true, []string{claim.PhaseCheck}},
		{"52 another image", nil, func(s *scene) {
			s.ev.Config = string(bytes.Replace([]byte(s.ev.Config), []byte(`"01`), []byte(`"02`), 1))
		}, true, []string{claim.ImageMeasurement}},
		{"52 another CPU count", nil, func(s *scene) {
			s.ev.Config = string(bytes.Replace([]byte(s.ev.Config), []byte(`"cpu_count":1`), []byte(`"cpu_count":2`), 1))
		}, true, []string{claim.ImageMeasurement}},
		{"52 no vm_config", nil, func(s *scene) { s.ev.Config = "" }, true, []string{claim.ImageMeasurement}},
	}
}
