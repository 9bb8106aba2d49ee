package prpc

import (
	"encoding"
	"fmt"
	"net/url"
	"reflect"
	"strconv"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
)

// decodeQuery reads a message from a query string: name=value, lists as name=a,
// name[]=a or name[0]=a.
func decodeQuery(q url.Values, v any) error {
	s := reflect.ValueOf(v).Elem()
	if s.Kind() != reflect.Struct {
		return nil
	}
	for i := range s.NumField() {
		name, _, _ := strings.Cut(s.Type().Field(i).Tag.Get("json"), ",")
		vals := values(q, name)
		if len(vals) == 0 || !s.Type().Field(i).IsExported() {
			continue
		}
		if err := setField(s.Field(i), vals); err != nil {
			return cvm.Errorf(cvm.Invalid, "query %s: %w", name, err)
		}
	}
	return nil
}

func values(q url.Values, name string) []string {
	vals := append(append([]string{}, q[name]...), q[name+"[]"]...)
	for i := 0; q.Has(fmt.Sprintf("%s[%d]", name, i)); i++ {
		vals = append(vals, q.Get(fmt.Sprintf("%s[%d]", name, i)))
	}
	return vals
}

func setField(f reflect.Value, vals []string) (err error) {
	switch p := f.Addr().Interface().(type) {
	case encoding.TextUnmarshaler:
		return p.UnmarshalText([]byte(vals[0]))
	case *string:
		*p = vals[0]
	case *[]string:
		*p = vals
	case *bool:
		*p, err = strconv.ParseBool(vals[0])
	case *uint32:
		var n uint64
		n, err = strconv.ParseUint(vals[0], 10, 32)
		*p = uint32(n)
	case **uint64:
		var n uint64
		if n, err = strconv.ParseUint(vals[0], 10, 64); err == nil {
			*p = &n
		}
	default:
		return cvm.Errorf(cvm.Invalid, "cannot be given in a query: use POST")
	}
	return err
}
