package cloudapi

// DiagnoseRequest is POST /cvms/{id}/customize-domain-diagnose.
type DiagnoseRequest struct {
	Domains []DiagnoseDomain `json:"domains" minItems:"1" maxItems:"10"`
}

// DiagnoseDomain is a name that should lead to a port of the app.
type DiagnoseDomain struct {
	Domain string `json:"domain" maxLength:"253"`
	Port   int    `json:"port" minimum:"1" maximum:"65535"`
}

// Diagnosis is its answer.
type Diagnosis struct {
	Results []DomainDiagnosis `json:"results"`
}

// DomainDiagnosis is one domain. CAACheck is null where no such record is there:
// then anybody's certificates are allowed.
type DomainDiagnosis struct {
	Domain   string      `json:"domain"`
	Port     int         `json:"port"`
	Records  []DNSRecord `json:"records"`
	IsValid  bool        `json:"is_valid"`
	CAACheck *CAACheck   `json:"caa_check"`
}

// DNSRecord is what a record should say, and what it says.
type DNSRecord struct {
	RecordType     string  `json:"record_type"`
	QueryName      string  `json:"query_name"`
	ExpectedValue  string  `json:"expected_value"`
	ActualValue    *string `json:"actual_value"`
	IsValid        bool    `json:"is_valid"`
	IsDeprecated   bool    `json:"is_deprecated"`
	WarningMessage *string `json:"warning_message"`
}

// CAACheck is what CAA records say of who may issue. ACMEFetches is empty and
// ExpectedURI null: ACME accounts are the gateway's own and are not asked for here.
type CAACheck struct {
	CAARecords  []string   `json:"caa_records"`
	AccountURI  *string    `json:"accounturi"`
	ACMEFetches []struct{} `json:"acme_fetches"`
	ExpectedURI *string    `json:"expected_uri"`
	IsMatch     bool       `json:"is_match"`
	InfoMessage *string    `json:"info_message"`
}
