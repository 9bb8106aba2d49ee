package store

// Face is what lists show of an app-compose. It is kept with the CVM, because reading
// the compose file takes longer than everything else that a list does.
type Face struct {
	Of            string `json:"of"` // sha256 of the app-compose, in hex: of another one this says nothing
	Gateway       bool   `json:"gateway,omitempty"`
	PublicLogs    bool   `json:"public_logs,omitempty"`
	PublicSysinfo bool   `json:"public_sysinfo,omitempty"`
	PublicTCB     bool   `json:"public_tcb,omitempty"`
	SecureTime    bool   `json:"secure_time,omitempty"`
	StorageFS     string `json:"storage_fs,omitempty"`
	Ports         []int  `json:"ports,omitempty"` // that the gateway reaches, 0 for the bare name
}
