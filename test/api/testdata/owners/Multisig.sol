// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// @notice Two of three owners: the call is made when the second of them approves it.
contract Multisig {
    address[3] private owners;
    mapping(bytes32 => mapping(address => bool)) private approved;
    mapping(bytes32 => uint256) private approvals;

    constructor(address[3] memory owners_) {
        owners = owners_;
    }

    function approve(address to, bytes calldata data) external {
        require(msg.sender == owners[0] || msg.sender == owners[1] || msg.sender == owners[2], "not an owner");
        bytes32 id = keccak256(abi.encode(to, data));
        require(!approved[id][msg.sender], "approved already");
        approved[id][msg.sender] = true;
        approvals[id]++;
        if (approvals[id] == 2) {
            (bool ok,) = to.call(data);
            require(ok, "the call failed");
        }
    }
}
