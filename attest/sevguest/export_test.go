package sevguest

// Derive is what Linux asks of the device node.
var Derive = derive
