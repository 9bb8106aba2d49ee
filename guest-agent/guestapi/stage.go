package guestapi

import "encoding/json"

// EventStage is the notification of a boot stage that is done.
const EventStage = "boot.stage"

// EventUnknownKeys names, as a JSON list, top-level keys of the app-compose that this
// guest does not know and that it ignored (manifest 1 and 2).
const EventUnknownKeys = "app-compose.unknown-keys"

// EventExit is the guest agent's last word in a machine: its exit code.
const EventExit = "guest.exit"

// Stage is a boot stage that is done, as the payload of EventStage. Number 0 is what a
// machine does before the first stage.
type Stage struct {
	Stage      string  `json:"stage"` // boot.Stages
	Name       string  `json:"name"`  // for people
	Number     int     `json:"number"`
	Of         int     `json:"of"`
	DurationMS float64 `json:"duration_ms"`
}

// Notify is the stage as a notification.
func (s Stage) Notify() Notify {
	b, err := json.Marshal(s)
	if err != nil { // numbers and strings
		return Notify{Event: EventStage}
	}
	return Notify{Event: EventStage, Payload: string(b)}
}
