package attest

// IntelRoots are the roots of genuine TDX: the Intel SGX Root CA.
func IntelRoots() []Root { return nil }
