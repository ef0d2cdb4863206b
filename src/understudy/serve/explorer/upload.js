export class Upload { show() {} enter() {} }
