// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

// Compiled for its artifact: the proxy that DstackKms (and an app deployed by hand) lives behind.
import {ERC1967Proxy} from "@openzeppelin/contracts/proxy/ERC1967/ERC1967Proxy.sol";
