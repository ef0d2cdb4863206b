export class Influence { show() {} enter() {} }
