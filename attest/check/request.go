package check

import (
	"encoding/json"

	"github.com/confidential-cloud/phala/attest"
)

// Request is the body of the reference verifier's POST /verify (dstack-core F.1).
type Request struct {
	Evidence attest.Evidence
	Debug    bool
}

// ParseRequest reads the reference's request: "attestation" (hex), or "quote" (hex)
// with "event_log" and "vm_config" (JSON in strings); beside an attestation the three
// are ignored, as are members of other names, so that the answer of a guest's quote
// API can be posted as it is. bad says that the body is not such a request; err that
// it is one whose evidence cannot be read.
func ParseRequest(raw []byte) (r Request, bad, err error) {
	f := object("request", raw)
	if f.has("debug") {
		if err := json.Unmarshal(f.m["debug"], &r.Debug); err != nil {
			f.fail("debug is not a boolean")
		}
	}
	for k := range f.m {
		absent := !f.has(k) || string(f.m[k]) == `""`
		drop := k == "report_data" || (f.has("attestation") && string(f.m["attestation"]) != `""` && k != "attestation")
		if absent || drop {
			delete(f.m, k)
		}
	}
	if f.err != nil {
		return r, f.err, nil
	}
	r.Evidence, err = evidenceOf(f)
	return r, nil, err
}

// Reply is the reference verifier's answer. Details are filled in as far as they
// were proven.
type Reply struct {
	IsValid bool    `json:"is_valid"`
	Details Details `json:"details"`
	Reason  *string `json:"reason"`
}

// Details of a Reply. What the reference computes with its own QEMU (the bytes of
// ACPI tables, "debug") is not here, so that acpi_tables_verified is always false.
type Details struct {
	QuoteVerified       bool         `json:"quote_verified"`
	EventLogVerified    bool         `json:"event_log_verified"`
	OSImageHashVerified bool         `json:"os_image_hash_verified"`
	ACPITablesVerified  bool         `json:"acpi_tables_verified"`
	OSImageIsDev        *bool        `json:"os_image_is_dev"`
	OSImageVersion      *string      `json:"os_image_version"`
	TEEVariant          string       `json:"tee_variant"`
	ReportData          *string      `json:"report_data"`
	TCBStatus           string       `json:"tcb_status"`
	AdvisoryIDs         []string     `json:"advisory_ids"`
	KeyProvider         *KeyProvider `json:"key_provider"`
	AppInfo             *AppInfo     `json:"app_info"`
	BootInfo            *BootInfo    `json:"boot_info,omitempty"`
}

// KeyProvider is the payload of the key-provider event.
type KeyProvider struct {
	Name string `json:"name"`
	ID   string `json:"id"`
}

// AppInfo is what was measured; all values in hex.
type AppInfo struct {
	AppID            string   `json:"app_id"`
	ComposeHash      string   `json:"compose_hash"`
	InstanceID       string   `json:"instance_id"`
	DeviceID         string   `json:"device_id"`
	MRSystem         string   `json:"mr_system"`
	MRAggregated     string   `json:"mr_aggregated"`
	OSImageHash      string   `json:"os_image_hash"`
	KeyProviderInfo  string   `json:"key_provider_info"`
	InitScriptHashes []string `json:"init_script_hashes"`
}

// BootInfo is what the reference's KMS asks its authorization webhook about
// (dstack-core B.7).
type BootInfo struct {
	TEEVariant      string   `json:"teeVariant"`
	MRAggregated    string   `json:"mrAggregated"`
	OSImageHash     string   `json:"osImageHash"`
	MRSystem        string   `json:"mrSystem"`
	AppID           string   `json:"appId"`
	ComposeHash     string   `json:"composeHash"`
	InstanceID      string   `json:"instanceId"`
	DeviceID        string   `json:"deviceId"`
	KeyProviderInfo string   `json:"keyProviderInfo"`
	TCBStatus       string   `json:"tcbStatus"`
	AdvisoryIDs     []string `json:"advisoryIds"`
}
