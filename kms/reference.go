package kms

import (
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
)

// metaAnswer is the reference's GetMetaResponse as JSON.
type metaAnswer struct {
	CACert            string  `json:"ca_cert"`
	AllowAnyUpgrade   bool    `json:"allow_any_upgrade"`
	K256PubKey        string  `json:"k256_pubkey"`
	BootstrapInfo     any     `json:"bootstrap_info"`
	IsDev             bool    `json:"is_dev"`
	GatewayAppID      *string `json:"gateway_app_id"`
	KMSContract       *string `json:"kms_contract_address"`
	ChainID           *uint64 `json:"chain_id"`
	AppImplementation *string `json:"app_auth_implementation"`
}

// refMeta fails, as the reference's does, when the authority gives no answer.
func (m *Member) refMeta(r *http.Request) (any, error) {
	info, err := m.cfg.Authority.Info(r.Context())
	if err != nil {
		return nil, err
	}
	e := m.machine.Epochs()
	return metaAnswer{
		CACert: m.rootPEM(), K256PubKey: hex.EncodeToString(e[len(e)-1].K256), IsDev: m.simulated,
		GatewayAppID: &info.GatewayAppID, KMSContract: &info.Contract, ChainID: &info.ChainID, AppImplementation: &info.AppImplementation,
	}, nil
}

// refEnvKey is GetAppEnvEncryptPubKey{app_id}.
func (m *Member) refEnvKey(r *http.Request) (any, error) {
	var req struct {
		AppID string `json:"app_id"`
	}
	if r.Method == http.MethodGet {
		req.AppID = r.URL.Query().Get("app_id")
	} else if b, err := io.ReadAll(io.LimitReader(r.Body, rpc.MaxBody)); err != nil || json.Unmarshal(b, &req) != nil {
		return nil, cvm.Errorf(cvm.Invalid, "Failed to decode request")
	}
	app, err := cvm.ParseAppID(strings.TrimPrefix(req.AppID, "0x"))
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "app_id must be 20 bytes")
	}
	at := uint64(m.now().Unix())
	pub, v0, v1, err := m.vault.Load().EnvPublicKey(app, at)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"public_key": hex.EncodeToString(pub), "signature": hex.EncodeToString(v0),
		"timestamp": at, "signature_v1": hex.EncodeToString(v1),
	}, nil
}
