package collateral

import (
	"encoding/json"
	"fmt"
	"reflect"
)

// Alike compares what is read from the signed bytes of a statement that was
// accepted with what encoding/json reads from them.
func Alike(tcbInfo bool, signed []byte) error {
	if tcbInfo {
		got, err := decodeTCBInfo(signed)
		return alike(got, new(jsonTCBInfo), signed, err)
	}
	got, err := decodeQEIdentity(signed)
	return alike(got, new(jsonQEIdentity), signed, err)
}

func alike[T any](got T, want *T, signed []byte, err error) error {
	if err == nil {
		err = json.Unmarshal(signed, want)
	}
	if err == nil && !reflect.DeepEqual(got, *want) {
		err = fmt.Errorf("%+v, encoding/json reads %+v", got, *want)
	}
	return err
}
